#include "deq/solvers/driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <limits>

namespace deq {
namespace {

using at::Tensor;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTiny = 1e-30;  // keeps 0 / 0 of a row that is exactly zero at zero: converged

/// a where `rows` holds, b elsewhere; rows (R), a and b (R, n). No arithmetic: NaN does not spread.
Tensor where_rows(const Tensor& rows, const Tensor& a, const Tensor& b) {
  return at::where(rows.unsqueeze(1), a, b);
}

class Driver {
 public:
  Driver(const Map& f, const Tensor& z0, const StopRule& stop, const Layout& layout)
      : f_(f), shape_(z0.sizes().vec()), stop_(stop), layout_(layout) {
    best_ = layout_.fold(z0.detach());
    const auto doubles = at::TensorOptions().dtype(at::kDouble).device(z0.device());
    const int64_t rows = layout_.rows();
    merit_ = at::full({rows}, kInfinity, doubles);
    residual_ = at::full({rows}, kInfinity, doubles);
    active_ = at::ones({rows}, doubles.dtype(at::kBool));
    reason_ = at::full({rows}, int64_t(Reason::MaxSteps), doubles.dtype(at::kByte));
    steps_ = at::full({rows}, stop.max_steps, doubles.dtype(at::kLong));
    best_step_ = at::zeros({rows}, doubles.dtype(at::kLong));
  }

  Solution run(const Propose& propose) {
    const std::function<Tensor(const Tensor&)> evaluate = [this](const Tensor& z) {
      return call(z);
    };
    Tensor z = best_, fz;
    int64_t step = 0;
    while (step < stop_.max_steps && any(active_)) {
      ++step;
      if (!fz.defined()) fz = call(z);
      Tensor g = measure(z, fz, step);
      if (step == stop_.max_steps || !any(active_)) break;
      Proposal next = propose({z, fz, g, evaluate});
      // Rows that are done are held where they are; then f at the proposal must be evaluated anew.
      const bool all_move = active_.all().item<bool>();
      z = all_move ? next.z : where_rows(active_, next.z, best_);
      fz = all_move ? next.fz : Tensor();
    }
    verify(step);
    return finish();
  }

 private:
  static bool any(const Tensor& rows) { return rows.any().item<bool>(); }

  Tensor call(const Tensor& z) {
    ++evaluations_;
    const Tensor fz = f_(z.view(shape_));
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
    Tensor g = fz - z;
    const Tensor g_norm = at::linalg_vector_norm(g, 2, at::IntArrayRef{1}).to(at::kDouble);
    const Tensor f_norm = at::linalg_vector_norm(fz, 2, at::IntArrayRef{1}).to(at::kDouble);
    const Tensor finite = g_norm.isfinite().logical_and_(f_norm.isfinite());
    const Tensor residual = g_norm / (f_norm + kTiny);
    const Tensor bound = (stop_.rel_tol * f_norm).clamp_min_(stop_.abs_tol);
    if (step == 1) first_norm_ = g_norm;
    const Tensor was_active = active_;

    if (!finite.all().item<bool>()) {
      retire(finite.logical_not().logical_and_(active_), Reason::NonFinite, step);
      g = where_rows(finite, g, at::zeros_like(g));
    }
    const Tensor grown = g_norm > kDivergence * (first_norm_ + kTiny);
    if (any(grown)) retire(grown.logical_and_(active_), Reason::Diverged, step);

    // A row that is done has a fixed own merit; the others are judged by this evaluation.
    const Tensor ratio = g_norm / (bound + kTiny);
    own_ = own_.defined() ? at::where(active_, ratio, own_) : ratio;
    own_ = at::where(finite, own_, at::full_like(own_, kInfinity));
    const Tensor merit = over_dependencies(own_);
    keep_best(z, merit, residual, step);
    retire((merit <= 1).logical_and_(active_), Reason::Converged, step);
    trace_.push_back(at::where(was_active, residual, residual_));
    return g;
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
    best_step_ = best_step_.masked_fill(better, step);
  }

  void retire(const Tensor& rows, Reason reason, int64_t step) {
    reason_ = reason_.masked_fill(rows, int64_t(reason));
    steps_ = steps_.masked_fill(rows, step);
    active_ = active_.logical_and(rows.logical_not());
  }

  /// By position, the best iterates of one sample may stem from different steps, and a position's
  /// residual depends on those before it: what is returned is then measured once more.
  void verify(int64_t step) {
    if (!layout_.by_position() || !any(active_.logical_and(best_step_ != step))) return;
    const Tensor fz = call(best_);
    const Tensor g_norm = at::linalg_vector_norm(fz - best_, 2, at::IntArrayRef{1}).to(at::kDouble);
    const Tensor f_norm = at::linalg_vector_norm(fz, 2, at::IntArrayRef{1}).to(at::kDouble);
    residual_ = at::where(active_, g_norm / (f_norm + kTiny), residual_);
    const Tensor bound = (stop_.rel_tol * f_norm).clamp_min_(stop_.abs_tol);
    own_ = at::where(active_, g_norm / (bound + kTiny), own_);
    own_ = own_.masked_fill(own_.isnan(), kInfinity);
    retire((over_dependencies(own_) <= 1).logical_and_(active_), Reason::Converged, step);
  }

  Solution finish() {
    Solution solution;
    solution.z = best_.view(shape_);
    Report& report = solution.report;
    report.reason = reason_;
    report.residual = residual_;
    report.steps = steps_;
    report.trace =
        trace_.empty() ? at::empty({0, layout_.rows()}, residual_.options()) : at::stack(trace_);
    report.evaluations = evaluations_;
    report.max_steps = stop_.max_steps;
    report.rel_tol = stop_.rel_tol;
    return solution;
  }

  const Map& f_;
  std::vector<int64_t> shape_;
  StopRule stop_;
  Layout layout_;
  Tensor best_;       // (R, n) the best iterate of every row
  Tensor merit_;      // (R) its merit: residual over tolerance, with those it depends on
  Tensor residual_;   // (R) its own relative residual
  Tensor best_step_;  // (R) the step it was evaluated in
  Tensor own_;        // (R) the latest own ratio of residual to tolerance
  Tensor active_;     // (R) bool: not done
  Tensor reason_, steps_, first_norm_;
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
