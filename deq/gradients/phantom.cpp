#include "deq/gradients/phantom.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "deq/gradients/unrolled.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The value of z*, the gradient of the taped chain. Not z* + (chain - chain.detach()): where the
/// chain overflows that is NaN, beside a report that says converged.
struct ValueOfAnother : torch::autograd::Function<ValueOfAnother> {
  static Tensor forward(AutogradContext*, const Tensor& /*chain*/, const Tensor& value) {
    return value.detach();
  }
  static variable_list backward(AutogradContext*, variable_list gradients) {
    return {gradients[0], Tensor()};
  }
};

}  // namespace

Equilibrated Phantom::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  validate(*this, "Phantom");
  Solution solution = forward.solve(f, z0);
  if (!c10::GradMode::is_enabled()) return {solution.z, std::move(solution.report)};
  Tensor z = solution.z.detach();
  for (int64_t k = 0; k < steps; ++k) {
    const Tensor fz = checked_value(f, z);
    if (k == 0) confirm(solution.report, z, fz, forward.stop);
    z = damped(z, fz, damping);
  }
  solution.report.evaluations += steps;
  z = marked(z, solution.report);
  // The value stays z*, with which the report and a pass without a tape agree.
  if (z.requires_grad()) solution.z = ValueOfAnother::apply(z, solution.z);
  return {solution.z, std::move(solution.report)};
}

Equilibrated OneStep::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  return Phantom{.steps = 1, .damping = 1.0}.apply(f, z0, forward);
}

}  // namespace deq
