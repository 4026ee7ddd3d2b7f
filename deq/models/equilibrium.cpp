#include "deq/models/equilibrium.h"

#include "deq/gradients/phantom.h"

namespace deq {

EquilibriumOptions for_evaluation(EquilibriumOptions options) {
  options.gradient = OneStep{};
  return options;
}

Equilibrated equilibrate(const Map& f, const at::Tensor& z0, const EquilibriumOptions& options,
                         std::function<void(const Report&)> on_adjoint) {
  Forward forward;
  forward.solve = [&options](const Map& map, const at::Tensor& start) {
    return solve(map, start, options.solver, options.stop);
  };
  forward.stop = options.stop;
  forward.on_adjoint = std::move(on_adjoint);
  return equilibrate(f, z0, options.gradient, forward);
}

Equilibrated equilibrate(const Map& f, const at::Tensor& z0, const Gradient& gradient,
                         const Forward& forward) {
  return gradient->apply(f, z0, forward);
}

at::Tensor equilibrium(const Map& f, const at::Tensor& z0, const EquilibriumOptions& options) {
  return equilibrate(f, z0, options).z;
}

}  // namespace deq
