// The minimum of a user's energy as a layer: z* = argmin_z E(z), differentiated through the
// condition grad E(z*) = 0.
#pragma once

#include "deq/gradients/implicit.h"
#include "deq/layers/equilibrium.h"
#include "deq/ops/gradient_step.h"
#include "deq/solvers/conjugate_residual.h"
#include "deq/solvers/descent.h"

namespace deq {

/// How a minimum is found and differentiated.
struct EnergyOptions {
  Solver solver = Descent{};
  StopRule stop = {.max_steps = 200, .rel_tol = 1e-6};
  Gradient gradient =
      Implicit{.solver = ConjugateResidual{}, .stop = {.max_steps = 200, .rel_tol = 1e-6}};
  double step = 0.1;

  static void fields(auto& self, auto&& field) {
    field("solver", self.solver, "of z = z - step grad E(z)");
    field("", self.stop);
    field("gradient", self.gradient, "how dL/dtheta crosses the minimum");
    field("step", self.step, "eta; the residual is that of z - eta grad E(z)", above(0));
  }
};

/// A local minimum of each sample's energy, or what was found on the way to one.
struct EnergyMinimum {
  at::Tensor z;       ///< shape of z0, with its tape when gradients are on; NaN where E is not
                      ///< finite, which the report says
  at::Tensor energy;  ///< (B) E at z, without a tape
  Report report;      ///< its residual is eta |grad E| / |z - eta grad E|
  std::shared_ptr<LatestReport> latest_adjoint = {};

  /// As Equilibrated's.
  Report adjoint() const { return latest_adjoint ? latest_adjoint->get() : Report{}; }
};

/// Descends E from z0 (B, ...) and passes gradients to whatever E captured: with H the Hessian at
/// z*, dL/dtheta = -(d grad E / dtheta)^T H^-1 dL/dz*; none reaches z0. From a start that is no
/// minimum's neighbour it may end on a saddle or another minimum: the residual says that grad E is
/// zero, not which zero. Where H is singular (a valley of minima) the adjoint does not converge,
/// and says so; so it is with an E of ReLUs, whose H is zero. A minimum at z = 0 needs an abs_tol.
/// Never throws for non-convergence; throws deq::Error for E of another shape, for step <= 0, and
/// for an E that is linear in z where gradients are wanted.
EnergyMinimum minimise_energy(const EnergyOf& energy, const at::Tensor& z0,
                              const EnergyOptions& options = {});

/// The energy of a modern Hopfield network (Ramsauer et al. 2021): with patterns X (K, D),
///
///     E(z) = |z|^2 / 2 - log(sum_k exp(beta <x_k, z>)) / beta
///
/// summed over the places of z (B, ..., D). A step of eta = 1 is attention: z <- X^T softmax(beta X
/// z), and patterns that stand apart are retrieved in one. Throws deq::Error for shapes that do not
/// fit and beta <= 0.
EnergyOf hopfield_energy(const at::Tensor& patterns, double beta);

}  // namespace deq
