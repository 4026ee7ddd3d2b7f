// The equilibrium layer for any f: solver and gradient mode in one call.
#pragma once

#include "deq/gradients/gradients.h"
#include "deq/solvers/solvers.h"

namespace deq {

/// How an equilibrium is found and differentiated.
struct EquilibriumOptions {
  Solver solver;
  StopRule stop = {};
  Gradient gradient;

  static void fields(auto& self, auto&& field) {
    solve_fields(self, field);
    field.group("gradient");
    field("gradient", self.gradient, "how dL/dtheta crosses the equilibrium");
  }
  /// Those that matter where no gradient is taken.
  static void solve_fields(auto& self, auto&& field) {
    field.group("solver");
    field("solver", self.solver, "root solver of z = f(z)");
    field("", self.stop);
  }
};

/// The same solver and stop rule with a gradient whose value is theirs: how a model is evaluated,
/// however it was trained (`Unrolled` and `Checkpointed` take steps of their own instead).
EquilibriumOptions for_evaluation(EquilibriumOptions options);

/// z* = f(z*) from z0, shape (B, T, D) or see Layout, with gradients to whatever f captured, and
/// how it was found: where a tensor is expected it is z*. Stateless: one f may be used many times
/// before backward, nested, and from several threads. Gradients do not depend on train or eval
/// mode, only on whether a tape is recorded. Never throws for non-convergence: ask `report`, and
/// after backward `adjoint()`. Throws deq::Error for an empty f and a z0 that is not of
/// floating-point numbers.
Equilibrated equilibrium(const Map& f, const at::Tensor& z0,
                         const EquilibriumOptions& options = {});

/// The same with a solve of one's own, which must find a z that is f's equilibrium.
Equilibrated equilibrate(const Map& f, const at::Tensor& z0, const Gradient& gradient,
                         const Forward& forward);

}  // namespace deq
