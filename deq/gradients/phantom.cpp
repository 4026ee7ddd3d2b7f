#include "deq/gradients/phantom.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "deq/gradients/unrolled.h"

namespace deq {

Equilibrated Phantom::apply(const Map& f, const at::Tensor& z0, const Forward& forward) const {
  validate(*this, "Phantom");
  Solution solution = forward.solve(f, z0);
  if (!at::GradMode::is_enabled()) return {solution.z, std::move(solution.report)};
  at::Tensor z = solution.z.detach();
  for (int64_t k = 0; k < steps; ++k) z = damped_step(f, z, damping);
  solution.report.evaluations += steps;
  // The value stays z*, with which the report and a pass without a tape agree.
  if (z.requires_grad()) solution.z = solution.z + (z - z.detach());
  return {solution.z, std::move(solution.report)};
}

Equilibrated OneStep::apply(const Map& f, const at::Tensor& z0, const Forward& forward) const {
  return Phantom{.steps = 1, .damping = 1.0}.apply(f, z0, forward);
}

}  // namespace deq
