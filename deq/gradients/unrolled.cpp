#include "deq/gradients/unrolled.h"

#include <ATen/ATen.h>

#include <cmath>

#include "deq/solvers/layout.h"
#include "deq/solvers/solver_loop.h"
#include "deq/solvers/start.h"

namespace deq {

using at::Tensor;

Tensor checked_value(const Map& f, const Tensor& z) {
  const Tensor fz = f(z);
  DEQ_CHECK(fz.sizes() == z.sizes(), "f maps shape [{}] to [{}]; z and f(z) must have one shape",
            fmt::join(z.sizes(), ", "), fmt::join(fz.sizes(), ", "));
  DEQ_CHECK(fz.scalar_type() == z.scalar_type(), "f maps {} to {}; expected one type",
            c10::toString(z.scalar_type()), c10::toString(fz.scalar_type()));
  return fz;
}

Tensor damped(const Tensor& z, const Tensor& fz, double damping) {
  return damping == 1.0 ? fz : (1 - damping) * z + damping * fz;
}

Tensor damped_step(const Map& f, const Tensor& z, double damping) {
  return damped(z, checked_value(f, z), damping);
}

Tensor unrolled_levels(const std::vector<Map>& levels, const Tensor& z0) {
  Tensor z = z0;
  for (const Map& level : levels) z = damped_step(level, z, 1.0);
  return z;
}

Report report_of_chain(const Tensor& z, const Tensor& next, int64_t steps, double damping,
                       const StopRule& stop) {
  const Layout layout(z, Scope::Sample, Order::Forward);
  const Tensor before = layout.fold(z.detach()), after = layout.fold(next.detach());
  const Tensor fz = damping == 1.0 ? after : before + (after - before) / damping;
  const Measured last(before, fz, stop);
  const auto rows = size_t(layout.rows());
  Numbers residual(rows);
  std::vector<uint8_t> reason(rows, uint8_t(Reason::MaxSteps));
  for (size_t r = 0; r < rows; ++r) {
    const bool finite = std::isfinite(last.residual[r]);
    residual[r] = finite ? last.residual[r] : kInfinity;
    if (!finite) reason[r] = uint8_t(Reason::NonFinite);
    if (last.ratio[r] <= 1) reason[r] = uint8_t(Reason::Converged);
  }
  Report report;
  report.residual = tensor_of(residual, at::kDouble);
  report.reason = tensor_of(reason, at::kByte);
  report.steps = at::full({int64_t(rows)}, steps, at::kLong);
  report.trace = report.residual.unsqueeze(0);
  report.evaluations = steps;
  report.max_steps = steps;
  report.rel_tol = stop.rel_tol;
  report.abs_tol = stop.abs_tol;
  return report;
}

Equilibrated Unrolled::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  validate(*this, "Unrolled");
  check_start(f, z0);
  Tensor z = z0, before;
  for (int64_t k = 0; k < steps; ++k) {
    before = z;
    z = damped_step(f, z, damping);
  }
  Report report = report_of_chain(before, z, steps, damping, forward.stop);
  count_bad_starts(report, z0, Layout(z0, Scope::Sample, Order::Forward));
  return {z, std::move(report)};
}

}  // namespace deq
