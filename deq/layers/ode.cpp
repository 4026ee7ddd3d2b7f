#include "deq/layers/ode.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <limits>

#include "deq/layers/ode_continuous.h"
#include "deq/layers/ode_event_end.h"
#include "deq/layers/ode_node.h"
#include "deq/layers/ode_reversible.h"

namespace deq {

using at::Tensor;

namespace ode {
namespace {

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
    DEQ_CHECK(!fixed || std::isinf(options.max_step),
              "OdeOptions.max_step = {}: the steps of runge_kutta4 are as long as its `steps` say; "
              "expected none",
              options.max_step);
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
    course.max_step = options_.max_step;
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
                               .max_step = options_.max_step,
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

/// What y0, the times, f and g hold that needs a gradient.
torch::autograd::edge_list all_edges(const Problem& p, const Start& start, const Events* events,
                                     const Tensor& state) {
  auto edges = torch::autograd::collect_next_edges(p.y0, p.clock);
  edges.insert(edges.end(), start.captured.begin(), start.captured.end());
  if (!events || p.B == 0) return edges;
  const c10::AutoGradMode tape(true);
  const NoCastCache no_cache;
  const Tensor t = p.clock[0].detach().contiguous().requires_grad_(true);
  const Tensor y = state.detach().requires_grad_(true);
  const TapeMark mark;
  Tensor g = events->evaluate(t, y, at::arange(p.B, at::device(y.device()).dtype(at::kLong)));
  if (!g.requires_grad()) return edges;
  g = g.view_as(g);
  const auto captured = captured_by(g, mark, {t, y});
  edges.insert(edges.end(), captured.begin(), captured.end());
  return edges;
}

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
    events = std::make_unique<Events>(options.event, p.B, p.shape, y0.scalar_type());
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
  int64_t steps = 0;  // that the tape has
  for (const auto& own : outcome.record.t) steps += int64_t(own.size());

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
    const EventEnd end =
        end_of_events(p, *events, field, options.event.grazing, values[p.T], outcome);
    for (int64_t b = 0; b < p.B; ++b) {
      if (end.grazes[size_t(b)]) outcome.reason[size_t(b)] = Reason::NotUnique;
    }
    const Tensor frozen =
        mask.logical_not().narrow(0, 0, p.T).logical_and(flags(events->found(), p.y0)).unsqueeze(2);
    values = at::where(frozen, end.y.unsqueeze(0), values.narrow(0, 0, p.T));
    found.event_time = end.time;
    if (c10::GradMode::is_enabled() && !end.time.requires_grad())
      found.event_time =
          with_zero_gradient(end.time, all_edges(p, start, events.get(), outcome.values[p.T]));
  }
  found.report = report_of(outcome, p, options, evaluations);
  found.reached = at::tensor(outcome.reached, at::kDouble);
  found.rejected = at::tensor(outcome.rejected, at::kLong);
  std::vector<int64_t> shape{p.T, p.B};
  shape.insert(shape.end(), p.shape.begin(), p.shape.end());
  // Of nothing, without a step or a solution: on the tape all the same, with the gradient 0.
  if (c10::GradMode::is_enabled() && !values.requires_grad()) {
    values = with_zero_gradient(values, all_edges(p, start, nullptr, {}));
  } else if (differentiable && steps == 0) {
    values = values + with_zero_gradient(at::zeros({}, values.options().requires_grad(false)),
                                         start.captured);
  }
  found.y = values.view(shape);
  return found;
}

}  // namespace deq
