#include "deq/solvers/driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <functional>
#include <limits>
#include <vector>

#include "deq/ops/rows.h"

namespace deq {
namespace {

using at::Tensor;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Keeps 0 / 0 of a row that is exactly zero at zero: converged. Below every norm that a float has.
constexpr double kTiny = 1e-100;

/// a where `rows` holds, b elsewhere; rows (R), a and b (R, n). No arithmetic: NaN does not spread.
Tensor where_rows(const Tensor& rows, const Tensor& a, const Tensor& b) {
  return at::where(rows.unsqueeze(1), a, b);
}

/// (R) double; the same numbers whatever other rows there are.
Tensor norms(const Tensor& rows) { return ops::row_dots({rows}, rows).squeeze(1).sqrt_(); }

/// One evaluation, judged: all (R) double.
struct Measured {
  Tensor g_norm, f_norm;
  Tensor residual;  // relative
  Tensor ratio;     // of |g| to what the tolerances allow: at most 1 where they are met
};

Measured measured(const Tensor& g, const Tensor& fz, const StopRule& stop) {
  const Tensor g_norm = norms(g), f_norm = norms(fz);
  const Tensor bound = (stop.rel_tol * f_norm).clamp_min_(stop.abs_tol);
  return {g_norm, f_norm, g_norm / (f_norm + kTiny), g_norm / (bound + kTiny)};
}

class Driver {
 public:
  Driver(const Map& f, const Tensor& z0, const StopRule& stop, const Layout& layout)
      : f_(f), shape_(z0.sizes().vec()), stop_(stop), layout_(layout) {
    start_ = best_ = layout_.fold(z0.detach());
    const auto doubles = at::TensorOptions().dtype(at::kDouble).device(z0.device());
    const int64_t rows = layout_.rows();
    merit_ = at::full({rows}, kInfinity, doubles);
    residual_ = at::full({rows}, kInfinity, doubles);
    active_ = at::ones({rows}, doubles.dtype(at::kBool));
    reason_ = at::full({rows}, int64_t(Reason::MaxSteps), doubles.dtype(at::kByte));
    steps_ = at::full({rows}, stop.max_steps, doubles.dtype(at::kLong));
  }

  Solution run(const Propose& propose) {
    const std::function<Tensor(const Tensor&)> evaluate = [this](const Tensor& z) {
      return call(held(z));
    };
    Tensor z = best_, fz;
    int64_t step = 0;
    while (step < stop_.max_steps && any(active_)) {
      ++step;
      if (!fz.defined()) fz = call(z);
      const Tensor g = measure(z, fz, step);
      if (step == stop_.max_steps || !any(active_)) break;
      const Proposal next = propose({z, fz, g, active_, evaluate});
      z = held(next.z);
      fz = next.fz;
    }
    verify(z, step);
    return finish();
  }

 private:
  static bool any(const Tensor& rows) { return rows.any().item<bool>(); }

  /// z, with the rows that are done where they are.
  Tensor held(const Tensor& z) const {
    return active_.all().item<bool>() ? z : where_rows(active_, z, best_);
  }

  Tensor call(const Tensor& z) {
    ++evaluations_;
    const Tensor fz = f_(z.view(shape_));
    DEQ_CHECK(fz.defined(), "solve: f returned an undefined tensor; expected shape [{}]",
              fmt::join(shape_, ", "));
    DEQ_CHECK(fz.sizes() == at::IntArrayRef(shape_),
              "solve: f maps shape [{}] to [{}]; z and f(z) must have one shape",
              fmt::join(shape_, ", "), fmt::join(fz.sizes(), ", "));
    DEQ_CHECK(fz.scalar_type() == best_.scalar_type(), "solve: f maps {} to {}; expected one type",
              c10::toString(best_.scalar_type()), c10::toString(fz.scalar_type()));
    return layout_.fold(fz.detach());
  }

  /// The largest value among the rows that each row depends on, itself included. (R)
  Tensor over_dependencies(const Tensor& value) const {
    if (!layout_.by_position()) return value;
    const Tensor by_position = value.view({layout_.batch, layout_.positions});
    if (layout_.order == Order::Forward) return std::get<0>(by_position.cummax(1)).reshape({-1});
    return std::get<0>(by_position.flip(1).cummax(1)).flip(1).reshape({-1});
  }

  /// Updates residuals, reasons and best iterates from one evaluation; returns g = f(z) - z.
  Tensor measure(const Tensor& z, const Tensor& fz, int64_t step) {
    const Tensor g = fz - z;
    const Measured now = measured(g, fz, stop_);
    last_ = now.residual;
    const Tensor finite = now.g_norm.isfinite().logical_and_(now.f_norm.isfinite());
    if (step == 1) {
      // With |f(z0)|, and over what a row depends on: a row that rests at first may well move
      // later.
      const Tensor first = at::maximum(now.g_norm, now.f_norm);
      scale_ = over_dependencies(at::where(finite, first, at::zeros_like(first)));
    }
    const Tensor was_active = active_;
    // A row that is done has a fixed ratio of its own; the others are judged by this evaluation.
    own_ = step == 1 ? now.ratio : at::where(active_, now.ratio, own_);
    fail(finite.logical_not(), Reason::NonFinite, step);
    fail(now.g_norm > kDivergence * (scale_ + kTiny), Reason::Diverged, step);
    const Tensor merit = over_dependencies(own_);
    keep_best(z, merit, now.residual, step);
    retire((merit <= 1).logical_and_(active_), Reason::Converged, step);
    trace_.push_back(at::where(was_active, now.residual, residual_));
    return finite.all().item<bool>() ? g : where_rows(finite, g, at::zeros_like(g));
  }

  /// Gives up the rows, and with them those that depend on them and could never converge.
  void fail(const Tensor& rows, Reason reason, int64_t step) {
    const Tensor failed = rows.logical_and(active_);
    if (!any(failed)) return;
    own_ = own_.masked_fill(failed, kInfinity);
    const Tensor lost = over_dependencies(failed.to(at::kDouble)) > 0;
    retire(lost.logical_and(active_), reason, step);
  }

  void keep_best(const Tensor& z, const Tensor& merit, const Tensor& residual, int64_t step) {
    // The first evaluation always counts: without it a row would have no residual of its own.
    const Tensor better = step == 1 ? active_ : (merit < merit_).logical_and_(active_);
    if (better.all().item<bool>()) {
      best_ = z;
    } else if (any(better)) {
      best_ = where_rows(better, z, best_);
    }
    merit_ = at::where(better, merit, merit_);
    residual_ = at::where(better, residual, residual_);
  }

  void retire(const Tensor& rows, Reason reason, int64_t step) {
    reason_ = reason_.masked_fill(rows, int64_t(reason));
    steps_ = steps_.masked_fill(rows, step);
    active_ = active_.logical_and(rows.logical_not());
  }

  /// By position, the best iterates of one sample may stem from different steps, and a position's
  /// residual depends on those before it, which may have moved since the position was given up. So
  /// the residuals are those of the last evaluation where that was of what is returned; otherwise
  /// that is measured once more.
  void verify(const Tensor& z, int64_t step) {
    const Tensor open = reason_.ne(int64_t(Reason::Converged));
    if (!layout_.by_position() || !any(open)) return;
    const auto known = [](const Tensor& t) { return t.masked_fill(t.isnan(), kInfinity); };
    if (best_.equal(z)) {
      residual_ = at::where(open, known(last_), residual_);
      return;
    }
    const Tensor fz = call(best_);
    const Measured now = measured(fz - best_, fz, stop_);
    residual_ = at::where(open, known(now.residual), residual_);
    own_ = at::where(active_, known(now.ratio), own_);
    retire((over_dependencies(own_) <= 1).logical_and_(active_), Reason::Converged, step);
  }

  Solution finish() {
    Solution solution;
    solution.z = (best_.is_same(start_) ? best_.clone() : best_).view(shape_);
    Report& report = solution.report;
    report.reason = reason_;
    report.residual = residual_;
    report.steps = steps_;
    report.trace =
        trace_.empty() ? at::empty({0, layout_.rows()}, residual_.options()) : at::stack(trace_);
    report.evaluations = evaluations_;
    report.max_steps = stop_.max_steps;
    report.rel_tol = stop_.rel_tol;
    report.abs_tol = stop_.abs_tol;
    return solution;
  }

  const Map& f_;
  std::vector<int64_t> shape_;
  StopRule stop_;
  Layout layout_;
  Tensor start_;     // (R, n) z0, the caller's memory perhaps
  Tensor best_;      // (R, n) the best iterate of every row
  Tensor merit_;     // (R) its merit: the ratio to the tolerance, over the rows it depends on
  Tensor residual_;  // (R) its own relative residual
  Tensor last_;      // (R) the same at the latest evaluation, best or not
  Tensor own_;       // (R) the latest ratio of a row by itself; infinite where it failed
  Tensor scale_;     // (R) what |f(z) - z| is compared with to see that it diverges
  Tensor active_;    // (R) bool: not done
  Tensor reason_, steps_;
  std::vector<Tensor> trace_;
  int64_t evaluations_ = 0;
};

}  // namespace

Solution iterate(const Map& f, const at::Tensor& z0, const Propose& propose, const StopRule& stop,
                 const Layout& layout) {
  validate(stop, "StopRule");
  DEQ_CHECK(z0.defined() && z0.is_floating_point(),
            "solve: z0 is {}; expected a floating-point tensor",
            z0.defined() ? c10::toString(z0.scalar_type()) : "undefined");
  c10::AutoGradMode no_tape(false);
  return Driver(f, z0, stop, layout).run(propose);
}

}  // namespace deq
