#include "deq/solvers/solver_loop.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "deq/base/epsilon.h"
#include "deq/base/threads.h"
#include "deq/ops/rows.h"

namespace deq {

using at::Tensor;

namespace {

/// The larger one, NaN being the largest.
double larger(double a, double b) { return b > a || std::isnan(b) ? b : a; }

/// part / whole; nothing of nothing is nothing, and what is not a number is infinite.
double share(double part, double whole) {
  if (part == 0 && !std::isnan(whole)) return 0;
  const double found = part / whole;
  return std::isnan(found) ? kInfinity : found;
}

// An f that sums in another order each time, as on a GPU, may differ by so many roundings of |f|.
constexpr double kRoundings = 16;

}  // namespace

double round_off(at::ScalarType type) { return kRoundings * epsilon_of(type); }

Measured::Measured(const Tensor& z, const Tensor& fz, const StopRule& stop, TensorPool* pool) {
  const ops::RowResidual found = ops::row_residual(z, fz, pool);
  g = found.g;
  const Tensor norms = found.norms.to(at::kCPU);
  const double* n = norms.data_ptr<double>();
  round_off = deq::round_off(z.scalar_type());
  for (Numbers* numbers : {&g_norm, &f_norm, &residual, &ratio, &rounding})
    numbers->reserve(size_t(norms.size(0)));
  for (int64_t r = 0; r < norms.size(0); ++r, n += 2) {
    const double limit = std::max(stop.rel_tol * n[1], stop.abs_tol);
    g_norm.push_back(n[0]);
    f_norm.push_back(n[1]);
    residual.push_back(share(n[0], n[1]));
    ratio.push_back(share(n[0], limit));
    rounding.push_back(limit > 0 ? round_off * n[1] / limit : 0);
  }
}

SolverLoop::SolverLoop(const Map& f, const Tensor& z0, const StopRule& stop, const Layout& layout)
    : f_(f.series()),
      shape_(z0.sizes().vec()),
      stop_(stop),
      layout_(layout),
      rows_(size_t(layout.rows())) {
  start_ = best_ = layout_.fold(z0.detach());
  merit_.assign(rows_, kInfinity);
  residual_.assign(rows_, kInfinity);
  last_.assign(rows_, kInfinity);
  own_.assign(rows_, kInfinity);
  rate_.assign(rows_, std::numeric_limits<double>::quiet_NaN());
  active_.assign(rows_, 1);
  reason_.assign(rows_, uint8_t(Reason::MaxSteps));
  steps_.assign(rows_, stop.max_steps);
}

Tensor SolverLoop::call(const Tensor& z, const std::vector<int64_t>& done) {
  ++evaluations_;
  look_for_free_threads();
  const Tensor fz = f_(z.view(shape_), done);
  DEQ_CHECK(fz.defined(), "solve: f returned an undefined tensor; expected shape [{}]",
            fmt::join(shape_, ", "));
  DEQ_CHECK(fz.sizes() == at::IntArrayRef(shape_),
            "solve: f maps shape [{}] to [{}]; z and f(z) must have one shape",
            fmt::join(shape_, ", "), fmt::join(fz.sizes(), ", "));
  DEQ_CHECK(fz.scalar_type() == best_.scalar_type(), "solve: f maps {} to {}; expected one type",
            c10::toString(best_.scalar_type()), c10::toString(fz.scalar_type()));
  return layout_.fold(fz.detach());
}

Numbers SolverLoop::over_dependencies(Numbers value) const {
  if (!layout_.by_position()) return value;
  const size_t T = size_t(layout_.positions);
  for (size_t begin = 0; begin < rows_; begin += T) {
    for (size_t k = 1; k < T; ++k) {
      const bool forward = layout_.order == Order::Forward;
      double& here = value[forward ? begin + k : begin + T - 1 - k];
      here = larger(value[forward ? begin + k - 1 : begin + T - k], here);
    }
  }
  return value;
}

void SolverLoop::retire(size_t row, Reason reason, int64_t step) {
  reason_[row] = uint8_t(reason);
  steps_[row] = step;
  active_[row] = 0;
}

void SolverLoop::trace(const Numbers& residual) {
  if (trace_.size() + residual.size() > kTraceNumbers) return;
  trace_.insert(trace_.end(), residual.begin(), residual.end());
}

void SolverLoop::conclude(const Tensor& z) {
  const Numbers merit = over_dependencies(own_);
  Flags latest(rows_);
  bool known = judged_;
  for (size_t r = 0; r < rows_; ++r) {
    latest[r] = active_[r] && merit[r] <= kFarWorse * merit_[r];
    known = known && (latest[r] || !active_[r]);
  }
  if (known) {
    best_ = z;
    residual_ = last_;
    return;
  }
  if (rows_ == 1) return;  // its best iterate was judged when it was found
  best_ = ops::row_where(latest, z, best_);
  const Measured now(best_, call(best_, none_done()), stop_);
  residual_ = now.residual;
  for (size_t r = 0; r < rows_; ++r) {
    if (active_[r] || converged(r)) own_[r] = now.ratio[r];
  }
  const Numbers judged = over_dependencies(own_);
  for (size_t r = 0; r < rows_; ++r) {
    if (active_[r] && judged[r] <= 1) retire(r, Reason::Converged, stop_.max_steps);
    if (converged(r) && !(judged[r] <= 1)) retire(r, Reason::MaxSteps, stop_.max_steps);
  }
}

Solution SolverLoop::finish() {
  Solution solution;
  solution.z = (best_.is_same(start_) ? best_.clone() : best_).view(shape_);
  Report& report = solution.report;
  report.reason = tensor_of(reason_, at::kByte);
  report.residual = tensor_of(residual_, at::kDouble);
  report.steps = tensor_of(steps_, at::kLong);
  report.rate = tensor_of(rate_, at::kDouble);
  const int64_t R = int64_t(rows_);
  report.trace = tensor_of(trace_, at::kDouble).view({R > 0 ? int64_t(trace_.size()) / R : 0, R});
  report.evaluations = evaluations_;
  report.max_steps = stop_.max_steps;
  report.rel_tol = stop_.rel_tol;
  report.abs_tol = stop_.abs_tol;
  return solution;
}

}  // namespace deq
