#include "deq/layers/equilibrium_layer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/gradients/implicit.h"
#include "deq/gradients/jacobian.h"
#include "deq/gradients/unrolled.h"
#include "deq/layers/subsequences.h"

namespace deq {

using at::Tensor;

namespace {

void check_scope(const Solver& solver, bool causal_cell, const char* name) {
  const Scope scope = scope_of(solver);
  DEQ_CHECK(causal_cell || !by_position(scope),
            "{} = {}: positions of this cell depend on later ones; expected sample or whole, or a "
            "causal cell",
            name, Names<Scope>::values[size_t(scope)]);
}

/// z -> f(z + noise N(0, 1)), which has no equilibrium: for training.
Map noisy(const Map& f, double noise) {
  return Map([f, noise](const Tensor& z) { return f(z + noise * at::randn_like(z)); }, {});
}

/// f, which notes the states that it is asked about. The gradient mode calls it in order.
Map noting(const Map& f, std::vector<Tensor>& states) {
  return Map(
      [f, &states](const Tensor& z) {
        states.push_back(z);
        return f(z);
      },
      {});
}

Tensor after_free_steps(const Map& f, Tensor z, int64_t steps) {
  c10::AutoGradMode no_tape(false);
  for (int64_t step = 0; step < steps; ++step) z = f(z);
  return z;
}

/// (B) of a state (B, T, D), or (B, H, W, D). Its scale has no gradient.
Tensor motion(const Map& f, const Tensor& z) {
  const Tensor fz = f(z);
  return (fz - z).square().flatten(1).sum(1) / fz.detach().square().flatten(1).sum(1);
}

}  // namespace

void check_scope(const EquilibriumOptions& options, bool causal_cell) {
  check_scope(options.solver, causal_cell, "solver-scope");
  if (const auto* implicit = options.gradient.get_if<Implicit>())
    check_scope(implicit->solver, causal_cell, "gradient-solver-scope");
}

LayerOutput EquilibriumLayer::forward(const Tensor& x, const Histories& histories,
                                      const ForwardOptions& options) {
  const EquilibriumOptions& how = options.equilibrium;
  const Bound f = std::move(bind(x, histories).front());
  check_scope(how, cell().causal());
  const auto* implicit = how.gradient.get_if<Implicit>();
  DEQ_CHECK(
      !implicit || implicit->shine == 0 || options.subsequence == 0,
      "gradient-shine = {} with subsequence = {}: parts are solved without a whole that could "
      "be learned from; expected 0",
      implicit ? implicit->shine : 0, options.subsequence);
  Forward forward;
  forward.stop = how.stop;
  forward.on_adjoint = options.on_adjoint;
  forward.solve = [&](const Map& map, const Tensor& z0) {
    return options.subsequence > 0
               ? solve_by_parts(f, z0, options.subsequence, how.solver, how.stop)
               : solve(map, z0, how.solver, how.stop);
  };
  LayerOutput output;
  const Map map = options.noise > 0 ? noisy(f.f, options.noise) : f.f;
  const Tensor z0 = after_free_steps(map, start(x, options), options.free_steps);
  const bool steps = options.states && how.gradient.is<Unrolled>();
  Equilibrated found =
      equilibrate(steps ? noting(map, output.states) : map, z0, how.gradient, forward);
  if (steps) output.states.erase(output.states.begin());  // z0
  if (options.states) output.states.push_back(found.z);
  output.report = std::move(found.report);
  output.histories = {f.extend(found.z.detach(), options.history)};
  if (options.jacobian_loss) output.jacobian_loss = jacobian_loss(f.f, found.z.detach());
  if (options.rest_loss) output.rest_loss = motion(f.f, found.z);
  output.z = std::move(found.z);
  return output;
}

}  // namespace deq
