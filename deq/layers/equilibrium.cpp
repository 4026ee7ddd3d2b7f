#include "deq/layers/equilibrium.h"

#include "deq/gradients/phantom.h"

namespace deq {

EquilibriumOptions for_evaluation(EquilibriumOptions options) {
  options.gradient = OneStep{};
  return options;
}

Equilibrated equilibrium(const Map& f, const at::Tensor& z0, const EquilibriumOptions& options) {
  Forward forward;
  forward.solve = [&options](const Map& map, const at::Tensor& start) {
    return solve(map, start, options.solver, options.stop);
  };
  forward.stop = options.stop;
  return equilibrate(f, z0, options.gradient, forward);
}

Equilibrated equilibrate(const Map& f, const at::Tensor& z0, const Gradient& gradient,
                         const Forward& forward) {
  return gradient->apply(f, z0, forward);
}

}  // namespace deq
