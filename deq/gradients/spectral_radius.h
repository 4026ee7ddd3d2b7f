// What the Jacobian J = df/dz at an equilibrium says about stability, from vector-Jacobian products
// alone.
#pragma once

#include "deq/base/map.h"

namespace deq {

/// The spectral radius of J for each sample. Not converged, a radius is the best estimate, and may
/// be far off: too small as well as too large.
struct SpectralRadius {
  static constexpr double kTolerance = 1e-3;

  at::Tensor radius;     ///< (B) double
  at::Tensor residual;   ///< (B) double, |v^T J - lambda v| / |lambda|, |v| = 1, of that eigenvalue
  at::Tensor moved;      ///< (B) double, the part of the radius that J's rounding moves it by
  int64_t products = 0;  ///< v^T J of the whole batch

  /// Every residual, and what rounding moves, is at most kTolerance.
  bool converged() const;
};

/// By Arnoldi's method, restarted from its dominant vector (Saad, Numerical Methods for Large
/// Eigenvalue Problems, 2011, ch. 6), for each sample by itself: up to 128 orthonormal vectors at a
/// time (of doubles, on the CPU), until every sample has a small residual or `max_products` are
/// made. A state of at most 128 numbers is spanned by its unit vectors: J is then known, and the
/// radius exact. What J is multiplied with does not matter, as long as its numbers and radius are
/// numbers of the type.
///
/// Where J is far from normal (a long chain that feeds forward only), its own rounding moves the
/// eigenvalues, and a residual says little of them. So the radius is computed once more with J
/// changed: each of its numbers by 8 roundings of z's type where they are known, otherwise J on the
/// subspace by as much of its norm, at least by 1e-8. `moved` is what came of that: one trial, no
/// bound. What a subspace cannot see it does not tell: of a chain much longer than 128 numbers (0.9
/// on the diagonal, 0.3 beside it, 200 numbers) the radius comes out as about 1.18 in place of 0.9,
/// with a small residual and as converged. Needs a tape: throws deq::Error in InferenceMode, which
/// records none.
SpectralRadius spectral_radius(const Map& f, const at::Tensor& z, int64_t max_products = 1280);

}  // namespace deq
