#pragma once

#include <ATen/core/Tensor.h>

namespace deq {

/// Every row of A (n, k), where it is outside, at its nearest point of the ball |row|_1 <= kappa,
/// so that the infinity norm is at most kappa (Held, Wolfe, Crowder 1974; Duchi et al. 2008): a
/// projection, of each row by itself, with its exact pattern of zeros,
///
///     out_j = sign(a_j) max(|a_j| - t, 0),   sum_j |out_j| = kappa
///
/// Sums are of distances from the row's largest number, so that a row of any size has digits as
/// good as one of size kappa. A row within kappa up to rounding is returned as it is, hence the
/// projection of a projection is that, to the bit.
///
/// Differentiable, twice as well: the gradient is projected on the face that the row is on, those j
/// with out_j != 0; where |a_j| = t exactly, j counts as zero, and where |row|_1 = kappa the row
/// counts as inside. Float and double. Throws deq::Error for a kappa that is not above 0 and for a
/// row with NaN or infinity.
at::Tensor project_rows_l1(const at::Tensor& A, double kappa);

/// The same onto sum_j weights_ij |a_ij| <= kappa, weights (n, k) > 0 without a gradient: the
/// nearest point in the norm in which a_ij weights_ij are the coordinates.
at::Tensor project_rows_l1(const at::Tensor& A, double kappa, const at::Tensor& weights);

}  // namespace deq
