// What the Jacobian J = df/dz at an equilibrium says about stability, from vector-Jacobian products
// alone.
#pragma once

#include "deq/solvers/report.h"

namespace deq {

/// Hutchinson estimate of |J|_F^2 / n at z (Bai, Koltun, Kolter 2021): the mean over `probes` of
/// |v^T J|^2 / n with v ~ N(0, I) and n the number of elements of z, batch included. A scalar,
/// differentiable with respect to what f captured; z itself is held fixed. f must be twice
/// differentiable.
at::Tensor jacobian_loss(const Map& f, const at::Tensor& z, int64_t probes = 1);

/// The spectral radius of J for each sample, (B) double: power iteration of v^T J, then the
/// eigenvalues of J on the span of the last two vectors, so that a complex pair is found as well as
/// a real eigenvalue.
at::Tensor spectral_radius(const Map& f, const at::Tensor& z, int64_t iterations = 100);

}  // namespace deq
