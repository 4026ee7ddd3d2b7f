#include "deq/layers/ode.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "deq/layers/ode_continuous.h"
#include "deq/layers/ode_driver.h"
#include "deq/layers/ode_events.h"
#include "deq/layers/ode_node.h"
#include "deq/layers/ode_reversible.h"

namespace deq {

using at::Tensor;

OdeTimes::OdeTimes(std::initializer_list<double> times)
    : value(at::tensor(std::vector<double>(times), at::kDouble)) {}

namespace ode {
namespace {

/// What is given, checked, as rows of numbers.
struct Problem {
  int64_t B = 0, n = 1, T = 0;
  std::vector<int64_t> shape;  // of a sample
  Tensor y0;                   // (B, n), with its tape
  Tensor clock;                // (T, B) of the type of y0, with its tape
  Times times;
  ops::Allowance allowed;
};

double roundings(at::ScalarType type, double count) {
  return count * (type == at::kFloat ? double(std::numeric_limits<float>::epsilon())
                                     : std::numeric_limits<double>::epsilon());
}

void check_times(const Times& times) {
  for (int64_t b = 0; b < times.samples; ++b) {
    double direction = 0;
    for (int64_t i = 0; i < times.count; ++i) {
      const double time = times.at(i, b);
      DEQ_CHECK(std::isfinite(time), "times[{}] = {}; expected a finite number", i, time);
      if (i == 0) continue;
      const double change = time - times.at(i - 1, b);
      DEQ_CHECK(change * direction >= 0, "times[{}] = {} after {}; expected times that are sorted",
                i, time, times.at(i - 1, b));
      if (direction == 0) direction = change;
    }
  }
}

Times times_on_host(const Tensor& given, int64_t B) {
  Times times;
  times.count = given.size(0);
  times.samples = B;
  const Tensor host = given.detach().to(at::kCPU, at::kDouble);
  const Tensor all =
      (host.dim() == 1 ? host.unsqueeze(1).expand({times.count, B}) : host).contiguous();
  times.values.assign(all.data_ptr<double>(), all.data_ptr<double>() + all.numel());
  check_times(times);
  return times;
}

Problem checked(const OdeFunction& f, const Tensor& y0, const OdeTimes& times,
                const OdeOptions& options) {
  validate(options, "OdeOptions");
  DEQ_CHECK(bool(f), "f is empty; expected a function of t and y");
  DEQ_CHECK(y0.defined() && y0.dim() >= 1 &&
                (y0.scalar_type() == at::kFloat || y0.scalar_type() == at::kDouble),
            "y0 has type {} and {} dimensions; expected float or double, (B, ...)",
            y0.defined() ? c10::toString(y0.scalar_type()) : "none", y0.defined() ? y0.dim() : 0);
  const Tensor& t = times.value;
  Problem p;
  p.B = y0.size(0);
  DEQ_CHECK(t.defined() && at::isFloatingType(t.scalar_type()) && t.dim() >= 1 && t.dim() <= 2 &&
                t.size(0) >= 1 && (t.dim() == 1 || t.size(1) == p.B),
            "times have shape [{}]; expected (T) or (T, {}), T >= 1, floating",
            t.defined() ? fmt::format("{}", fmt::join(t.sizes(), ", ")) : "", p.B);
  const double least = roundings(y0.scalar_type(), 4);
  DEQ_CHECK(options.rel_tol >= least,
            "OdeOptions.rel_tol = {}; expected >= {:.2g}, 4 roundings of {}", options.rel_tol,
            least, c10::toString(y0.scalar_type()));
  p.shape.assign(y0.sizes().begin() + 1, y0.sizes().end());
  for (const int64_t size : p.shape) p.n *= size;
  p.T = t.size(0);
  p.y0 = y0.contiguous().view({p.B, p.n});
  p.clock = t.to(y0.options().requires_grad(false));
  if (p.clock.dim() == 1) p.clock = p.clock.unsqueeze(1).expand({p.T, p.B});
  p.times = times_on_host(t, p.B);
  p.allowed.relative = options.rel_tol;
  p.allowed.absolute = at::full({p.n}, options.abs_tol, at::kDouble);
  if (options.abs_tols.defined()) {
    DEQ_CHECK(options.abs_tols.numel() == p.n, "abs_tols has shape [{}]; expected [{}]",
              fmt::join(options.abs_tols.sizes(), ", "), fmt::join(p.shape, ", "));
    p.allowed.absolute =
        options.abs_tols.detach().to(at::kCPU, at::kDouble).contiguous().view({p.n});
  }
  return p;
}

/// f at the start with a tape: what it captured, and k_0.
struct Start {
  Tensor slope;
  std::vector<torch::autograd::Edge> captured;
};

Start start_of(const Field& f, const Problem& p) {
  const c10::AutoGradMode tape(true);
  const NoCastCache no_cache;
  const Tensor leaf = p.y0.detach().requires_grad_(true);
  const Tensor rows = at::arange(p.B, at::TensorOptions(at::kLong).device(leaf.device()));
  const TapeMark mark;
  Tensor value = f(p.clock.detach()[0].contiguous(), leaf, rows);
  Start start{value.detach().clone(), {}};
  if (value.requires_grad()) {
    value = value.view_as(value);
    start.captured = captured_by(value, mark, {leaf});
  }
  return start;
}

Tensor flags(const std::vector<char>& list, const Tensor& like) {
  return at::tensor(std::vector<int64_t>(list.begin(), list.end()), at::kLong)
      .to(like.device(), at::kBool);
}

/// Where an output is the solution at its own time: (slots, B).
Tensor reached_mask(const Record& record, int64_t slots, const Tensor& like) {
  const auto B = int64_t(record.places.size());
  std::vector<char> mask(size_t(slots * B), 0);
  for (int64_t b = 0; b < B; ++b) {
    for (const Place& place : record.places[size_t(b)]) mask[size_t(place.slot * B + b)] = 1;
  }
  return flags(mask, like).view({slots, B});
}

/// f at every output (T - 1, B, n), zero where there is none.
Tensor slopes_at_outputs(const Field& f, const Problem& p, const Tensor& values,
                         const Tensor& mask) {
  const c10::AutoGradMode no_tape(false);
  const int64_t later = p.T - 1;
  const Tensor t = p.clock.detach().narrow(0, 1, later).reshape({later * p.B});
  const Tensor y = values.detach().narrow(0, 1, later).reshape({later * p.B, p.n});
  const Tensor rows =
      at::arange(p.B, at::TensorOptions(at::kLong).device(y.device())).repeat({later});
  const Tensor slope = f(t, y, rows).view({later, p.B, p.n});
  return slope.masked_fill(mask.narrow(0, 1, later).logical_not().unsqueeze(2), 0);
}

/// The event's time and state with their gradients: dt* = -dg / (g_t + g_y f) at fixed time.
class EventEnd {
 public:
  EventEnd(const Problem& p, const Events& events, const Field& f, double grazing)
      : p_(p), events_(events), f_(f), grazing_(grazing) {}

  /// `state` (B, n) at the found times, with its tape.
  void run(const Tensor& state, const Outcome& outcome) {
    time = at::tensor(outcome.reached, at::kDouble).to(p_.y0.options().requires_grad(false));
    y = state;
    std::vector<int64_t> rows;
    for (int64_t b = 0; b < p_.B; ++b) {
      if (events_.found()[size_t(b)]) rows.push_back(b);
    }
    grazes.assign(size_t(p_.B), 0);
    if (rows.empty()) return;
    const Tensor index = at::tensor(rows, at::kLong).to(state.device());
    const Tensor own_t = time.index_select(0, index), own_y = state.index_select(0, index);
    const Tensor slope = slope_of_g(own_t, own_y.detach(), index);
    const Tensor host = slope.to(at::kCPU, at::kDouble);
    std::vector<double> scale(rows.size(), 0.0);
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto b = size_t(rows[r]);
      const double d = std::abs(host[int64_t(r)].item<double>());
      grazes[b] = !(d > grazing_ * events_.slope_scale()[b]);
      if (!grazes[b]) scale[r] = 1;
    }
    y = at::where(flags(grazes, state).unsqueeze(1), state.detach(), state);
    if (!c10::GradMode::is_enabled()) return;
    const Tensor g = events_.evaluate(own_t, own_y, index);
    if (!g.requires_grad()) return;
    const Tensor kept = column_of(scale, p_.y0).squeeze(1).gt(0);
    const Tensor factor = at::where(kept, -1 / slope, at::zeros_like(slope));
    const Tensor moved = at::where(kept, g - g.detach(), at::zeros_like(slope)) * factor;
    time = time.index_add(0, index, moved);
    y = state.index_add(0, index,
                        f_at_.masked_fill(kept.logical_not().unsqueeze(1), 0) * moved.unsqueeze(1));
  }

  Tensor time, y;
  std::vector<char> grazes;

 private:
  /// g_t + g_y f along the solution.
  Tensor slope_of_g(const Tensor& t, const Tensor& y_at, const Tensor& rows) {
    {
      const c10::AutoGradMode no_tape(false);
      f_at_ = f_(t, y_at, rows).clone();
    }
    const c10::AutoGradMode tape(true);
    const Tensor leaf_t = t.detach().requires_grad_(true);
    const Tensor leaf_y = y_at.detach().requires_grad_(true);
    const Tensor g = events_.evaluate(leaf_t, leaf_y, rows);
    Tensor slope = at::zeros_like(t);
    if (!g.requires_grad()) return slope;
    const auto found =
        torch::autograd::grad({g.sum()}, {leaf_t, leaf_y}, {}, {}, false, /*unused=*/true);
    if (found[0].defined()) slope = slope + found[0];
    if (found[1].defined()) slope = slope + (found[1] * f_at_).sum(1);
    return slope.detach();
  }

  const Problem& p_;
  const Events& events_;
  Field f_;
  double grazing_;
  Tensor f_at_;
};

Report report_of(const Outcome& outcome, const Problem& p, const OdeOptions& options,
                 int64_t evaluations) {
  const auto B = int64_t(outcome.reason.size());
  Report report;
  report.reason = at::empty({B}, at::kByte);
  for (int64_t b = 0; b < B; ++b) {
    report.reason.data_ptr<uint8_t>()[b] = uint8_t(outcome.reason[size_t(b)]);
  }
  report.bad_starts = p.y0.detach().isfinite().all(1).logical_not().sum().item<int64_t>();
  report.residual = at::tensor(outcome.residual, at::kDouble);
  report.steps = at::tensor(outcome.accepted, at::kLong);
  report.trace = at::empty({0, B}, at::kDouble);
  report.rate = at::full({B}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  report.evaluations = evaluations;
  report.max_steps = options.max_steps;
  report.rel_tol = options.rel_tol;
  report.abs_tol = options.abs_tol;
  return report;
}

/// A solve in the way that its gradient asks for.
class Solve {
 public:
  Solve(const Problem& p, const OdeFunction& f, const Field& field, const OdeOptions& options,
        bool differentiable)
      : p_(p), field_(field), options_(options), differentiable_(differentiable) {
    reversible_ = std::get_if<Reversible>(&options.gradient);
    const Tableau* tableau = tableau_of(options.method);
    const auto* fixed = std::get_if<RungeKutta4>(&options.method);
    DEQ_CHECK(!reversible_ || (tableau && !options.event),
              "the gradient 'reversible' has no event and no stiff method; expected an explicit "
              "method without one, or the gradient 'checkpointed'");
    DEQ_CHECK(!std::holds_alternative<Backsolve>(options.gradient) || tableau,
              "the gradient 'backsolve' has no stiff method, whose equation is unstable backwards; "
              "expected 'checkpointed' or 'interpolated'");
    if (reversible_) {
      twice_ = std::make_unique<Field>(doubled(f, p.shape, p.y0.scalar_type()));
      stepper = reversible_stepper(*tableau, field, p.allowed, reversible_->coupling,
                                   fixed ? fixed->steps : 0);
    } else {
      stepper = stepper_of(options.method, field, p.allowed);
    }
  }

  Outcome run(const Tensor& slope, Events* events) {
    Course course;
    course.times = p_.times;
    course.allowed = p_.allowed;
    course.max_steps = options_.max_steps;
    course.outputs = p_.n;
    course.keep_record = true;
    course.keep_states = differentiable_ && std::holds_alternative<Checkpointed>(options_.gradient);
    course.events = events;
    if (differentiable_ && std::holds_alternative<Interpolated>(options_.gradient)) {
      path_ = std::make_shared<Path>(p_.B, p_.n, stepper->stages(), p_.y0.options());
      course.extend = true;
      course.on_step = [this](Work& work, const std::vector<char>& accepted) {
        path_->see(work, accepted);
      };
    }
    const Tensor y0 = p_.y0.detach();
    if (!reversible_) return drive(*stepper, field_, y0, slope, course);
    course.allowed.absolute = at::cat({p_.allowed.absolute, p_.allowed.absolute});
    const Tensor both = slope.defined() ? at::cat({slope, slope}, 1) : slope;
    return drive(*stepper, *twice_, at::cat({y0, y0}, 1), both, course);
  }

  /// The outcome's values with their gradient.
  Tensor differentiated(Outcome& outcome, const Tensor& y0,
                        const std::vector<torch::autograd::Edge>& captured) {
    if (std::holds_alternative<Unrolled>(options_.gradient))
      return unrolled_values(*stepper, field_, outcome.record, y0, outcome.values);
    const char* name = std::visit([](const auto& held) { return held.name; }, options_.gradient);
    return with_adjoint(outcome.values, y0, captured, field_, adjoint(outcome), name);
  }

  std::shared_ptr<Stepper> stepper;

 private:
  std::unique_ptr<Adjoint> adjoint(Outcome& outcome) {
    if (std::holds_alternative<Checkpointed>(options_.gradient))
      return discrete_adjoint(stepper, outcome.record, std::move(outcome.states));
    if (reversible_)
      return reversible_adjoint(*tableau_of(options_.method), reversible_->coupling, outcome.record,
                                outcome.last);
    return continuous_adjoint({.method = options_.method,
                               .rel_tol = options_.rel_tol,
                               .max_steps = options_.max_steps,
                               .record = outcome.record,
                               .times = p_.times,
                               .values = outcome.values,
                               .path = path_,
                               .stepper = stepper,
                               .allowed = p_.allowed});
  }

  const Problem& p_;
  const Field& field_;
  const OdeOptions& options_;
  bool differentiable_;
  const Reversible* reversible_ = nullptr;
  std::unique_ptr<Field> twice_;
  std::shared_ptr<Path> path_;
};

/// No gradient of what is no solution.
void forget(Record& record, int64_t sample) {
  const auto b = size_t(sample);
  record.t[b].clear();
  record.h[b].clear();
  record.places[b].clear();
}

}  // namespace
}  // namespace ode

Trajectory integrate(const OdeFunction& f, const Tensor& y0, const OdeTimes& times,
                     const OdeOptions& options) {
  using namespace ode;
  const Problem p = checked(f, y0, times, options);
  const Field field(f, p.shape, y0.scalar_type());
  const bool tape = c10::GradMode::is_enabled() && p.B > 0;
  const Start start = tape ? start_of(field, p) : Start{};
  const bool times_move = tape && times.value.requires_grad();
  const bool differentiable =
      tape && (times_move || p.y0.requires_grad() || !start.captured.empty());

  std::unique_ptr<Events> events;
  if (options.event)
    events = std::make_unique<Events>(options.event, p.B, p.shape, y0.scalar_type(), p.allowed);
  Solve solve(p, f, field, options, differentiable);
  Outcome outcome = solve.run(start.slope, events.get());

  for (int64_t b = 0; b < p.B; ++b) {
    const auto i = size_t(b);
    if (events && events->lost()[i]) outcome.reason[i] = Reason::NonFinite;
    if (outcome.reason[i] != Reason::Converged) forget(outcome.record, b);
    if (events && outcome.reason[i] == Reason::Converged && !events->found()[i])
      outcome.reason[i] = Reason::EventMissed;
  }
  const int64_t slots = outcome.values.size(0);
  const Tensor mask = reached_mask(outcome.record, slots, p.y0);
  Trajectory found;
  found.jacobians = solve.stepper->jacobians();
  found.factorisations = solve.stepper->factorisations();
  const int64_t evaluations = field.evaluations();

  Tensor values = outcome.values;
  Tensor y_start = p.y0;
  if (differentiable) {
    if (times_move) {
      const Tensor slope = start.slope.masked_fill(mask[0].logical_not().unsqueeze(1), 0);
      y_start = p.y0 - slope * (p.clock[0] - p.clock[0].detach()).unsqueeze(1);
    }
    values = solve.differentiated(outcome, y_start, start.captured);
    if (times_move) {
      Tensor later = values.narrow(0, 1, slots - 1);
      if (p.T > 1) {
        const Tensor moved = p.clock.narrow(0, 1, p.T - 1) - p.clock.narrow(0, 1, p.T - 1).detach();
        const Tensor own = later.narrow(0, 0, p.T - 1) +
                           slopes_at_outputs(field, p, values, mask) * moved.unsqueeze(2);
        later = slots > p.T ? at::cat({own, later.narrow(0, p.T - 1, 1)}) : own;
      }
      const Tensor at_start = at::where(mask[0].unsqueeze(1), p.y0, values[0]).unsqueeze(0);
      values = at::cat({at_start, later});
    }
  }
  if (events) {
    EventEnd end(p, *events, field, options.event.grazing);
    end.run(values[p.T], outcome);
    for (int64_t b = 0; b < p.B; ++b) {
      if (end.grazes[size_t(b)]) outcome.reason[size_t(b)] = Reason::NotUnique;
    }
    const Tensor frozen =
        mask.logical_not().narrow(0, 0, p.T).logical_and(flags(events->found(), p.y0)).unsqueeze(2);
    values = at::where(frozen, end.y.unsqueeze(0), values.narrow(0, 0, p.T));
    found.event_time = end.time;
  }
  found.report = report_of(outcome, p, options, evaluations);
  found.reached = at::tensor(outcome.reached, at::kDouble);
  found.rejected = at::tensor(outcome.rejected, at::kLong);
  std::vector<int64_t> shape{p.T, p.B};
  shape.insert(shape.end(), p.shape.begin(), p.shape.end());
  found.y = values.view(shape);
  return found;
}

}  // namespace deq
