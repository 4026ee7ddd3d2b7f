#include "deq/gradients/unrolled.h"

#include <ATen/ATen.h>

#include <limits>

#include "deq/solvers/layout.h"

namespace deq {

using at::Tensor;

Tensor damped_step(const Map& f, const Tensor& z, double damping) {
  const Tensor fz = f(z);
  DEQ_CHECK(fz.defined(), "f returned an undefined tensor; expected shape [{}]",
            fmt::join(z.sizes(), ", "));
  DEQ_CHECK(fz.sizes() == z.sizes(), "f maps shape [{}] to [{}]; z and f(z) must have one shape",
            fmt::join(z.sizes(), ", "), fmt::join(fz.sizes(), ", "));
  return damping == 1.0 ? fz : (1 - damping) * z + damping * fz;
}

Tensor unrolled_levels(const std::vector<Map>& levels, const Tensor& z0) {
  Tensor z = z0;
  for (const Map& level : levels) z = damped_step(level, z, 1.0);
  return z;
}

Report report_of_chain(const Tensor& z, const Tensor& next, int64_t steps, double damping,
                       const StopRule& stop) {
  const Layout layout(z, Scope::Sample, Order::Forward);
  const Tensor before = layout.fold(z.detach()).to(at::kDouble);
  const Tensor g = (layout.fold(next.detach()).to(at::kDouble) - before) / damping;  // f(z) - z
  const Tensor g_norm = g.norm(2, {1}), f_norm = (before + g).norm(2, {1});
  const Tensor converged = g_norm <= (stop.rel_tol * f_norm).clamp_min(stop.abs_tol);
  Report report;
  report.residual = g_norm / (f_norm + 1e-30);
  const Tensor finite = report.residual.isfinite();
  report.residual.masked_fill_(report.residual.isnan(), std::numeric_limits<double>::infinity());
  report.reason = at::full_like(g_norm, int64_t(Reason::MaxSteps), at::kByte)
                      .masked_fill(converged, int64_t(Reason::Converged))
                      .masked_fill(finite.logical_not(), int64_t(Reason::NonFinite));
  report.steps = at::full_like(g_norm, steps, at::kLong);
  report.trace = report.residual.unsqueeze(0);
  report.evaluations = steps;
  report.max_steps = steps;
  report.rel_tol = stop.rel_tol;
  report.abs_tol = stop.abs_tol;
  return report;
}

Equilibrated Unrolled::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  validate(*this, "Unrolled");
  Tensor z = z0, before;
  for (int64_t k = 0; k < steps; ++k) {
    before = z;
    z = damped_step(f, z, damping);
  }
  Report report = report_of_chain(before, z, steps, damping, forward.stop);
  return {z, std::move(report)};
}

}  // namespace deq
