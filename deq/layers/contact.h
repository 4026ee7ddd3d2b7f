// Contact with friction and joints as a layer: the velocities behind a step or an impact.
//
//     M (v+ - v) = impulse + Jn' lam + Jt' f + Je' eta,   Je v+ + joint_bias = 0
//     0 <= lam,  gap = Jn v+ + e (Jn v) + bias >= 0,  lam gap = 0         of each contact
//     |f| <= mu lam,  f = -mu lam where Jt v+ > 0,  f = mu lam where Jt v+ < 0
//
// in a plane: one tangent a contact (Stewart and Trinkle 1996; Anitescu and Potra 1997; as a layer,
// de Avila Belbute-Peres et al. 2018). A contact is open, sticks, or slides one way; once that is
// known everything is linear, and with the factor of the same system, given the gradients of a loss
// in the outputs, M'u + Je'y + Jn'y + Jt'y = g gives the exact gradient (contact_sample.h).
//
// How each contact is is found by exchange from a few sweeps of projected Gauss-Seidel; where that
// fails by Lemke's method, with lexicographic ties; then by trying what there is.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "deq/gradients/differentiate.h"
#include "deq/layers/degenerate.h"
#include "deq/solvers/report.h"

namespace deq {

/// n velocities, m contacts, p rows of joints. All of one floating type, on the CPU, each (B, ...)
/// or, shared by the batch, without B. Undefined: none, or 0.
struct Contact {
  at::Tensor mass;         ///< M (n, n), positive definite; symmetric or not
  at::Tensor velocity;     ///< v before (n)
  at::Tensor impulse;      ///< of forces, dt times them (n)
  at::Tensor normal;       ///< Jn (m, n): the gap grows with Jn v. A row of zeros is no contact
  at::Tensor tangent;      ///< Jt (m, n); without it there is no friction
  at::Tensor restitution;  ///< e (m) >= 0
  at::Tensor friction;     ///< mu (m) >= 0
  at::Tensor joint;        ///< Je (p, n)
  at::Tensor bias;         ///< (m), added to the gap: of a push apart, negative
  at::Tensor joint_bias;   ///< (p)
};

/// How one contact ended.
enum class Touch : uint8_t {
  Open,    ///< no impulse
  Sticks,  ///< Jt v+ = 0
  Up,      ///< slides, f = mu lam >= 0
  Down,    ///< slides, f = -mu lam
};

/// How it is solved, and what its gradient is where that is not unique.
struct ResolveOptions {
  /// Linear systems tried and pivots at most; `rel_tol` of the residual below which v+ is a
  /// solution.
  StopRule stop = {.max_steps = 5000, .rel_tol = 1e-9};
  /// Weakly active is: a contact that touches (gap = 0) without impulse, and a friction impulse at
  /// its bound whose contact does not move. Inactive: let go, so that the contact is open, or
  /// slides the way its friction points. Active, LeastNorm: held: the contact touches, or sticks;
  /// they differ as degenerate.h says where impulses depend on each other. Smoothed is none of
  /// these.
  Degenerate degenerate = Degenerate::LeastNorm;
  /// `touch` of an earlier solution: tried first.
  const at::Tensor* warm = nullptr;
};

/// Differentiable once in all data. Numbers are finite whatever happened.
struct Impact {
  at::Tensor velocity;          ///< v+ (B, n)
  at::Tensor normal_impulse;    ///< lam (B, m)
  at::Tensor friction_impulse;  ///< f (B, m)
  at::Tensor joint_impulse;     ///< eta (B, p)
  /// A sample each. `Converged`: all conditions hold, and v+ is the only one nearby; where friction
  /// is strong there may be others that are not near. `NotUnique`: they hold, but v+ is one of
  /// many, or does not move smoothly with the data. Else everything is 0: `Infeasible`, no v+
  /// meets the joints and the gaps, with a certificate, or, of five contacts at most, none of their
  /// combinations is a solution (bodies that friction wedges, and that restitution asks to part);
  /// `NotConvex`, M's symmetric part is not positive definite: a body without mass; `NonFinite`, a
  /// number that is not; `MaxSteps`, none was found. Gradients of all but `Converged` are 0.
  /// `residual`: the largest violation of a condition, in units of (energy)^1/2, as a share of what
  /// its row is the sum of, and of the balance of impulses in each row, as a share of the row's
  /// terms; of at least a thousandth of the largest number of its island. Infinite where there is
  /// no v+.
  /// `steps`: systems and pivots, the most of any island.
  Report report;
  at::Tensor touch;           ///< (B, m) uint8, Touch: the next call's warm start
  at::Tensor weak;            ///< (B) int64, weakly active conditions
  at::Tensor dependent;       ///< (B) int64, dimensions in which the impulses held are one of many
  at::Tensor factorisations;  ///< (B) int64
  /// (B, p + m) double, of samples whose joints and gaps contradict: y, z with  Je'y = Jn'z,
  /// z >= 0  and  (e (Jn v) + bias)'z < joint_bias'y. Else 0.
  at::Tensor certificate;
  std::shared_ptr<LatestReport> latest_adjoint = {};

  /// Of the linear system in the latest backward pass: its residual by sample.
  Report adjoint() const { return latest_adjoint ? latest_adjoint->get() : Report{}; }
};

/// Islands of bodies that nothing ties together are worlds of their own: their numbers and reasons
/// are what they are alone. In one, masses may be 1e-10 of others.
///
/// Never throws for what the numbers are, except for a friction or restitution below 0. Throws
/// deq::Error for shapes, types and options that do not fit. Gradients of shared data are sums over
/// the batch.
Impact resolve(const Contact& contact, const ResolveOptions& options = {});

}  // namespace deq
