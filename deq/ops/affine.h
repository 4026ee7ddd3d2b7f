// An affine map by the kernels' product: unlike a BLAS's, a row of its result depends neither on
// the rows beside it nor on the number of threads. So what a solve is bound to, and with it the
// solve, has the same bits for a text and for its beginning.
#pragma once

#include <ATen/core/Tensor.h>

#include "deq/ops/unchanged.h"

namespace deq::ops {

/// A weight (n, k) and its layout; none on a GPU and of types other than float and double.
struct AffineWeight {
  at::Tensor weight;    ///< taped
  at::Tensor panels;    ///< of W^T
  Unchanged unchanged;  ///< the weight
};
AffineWeight affine_weight(const at::Tensor& weight);

/// x W^T + base, for x (B, T, k) and a base that is (n), (B, T, n) or undefined. Differentiable,
/// twice as well. Throws deq::Error for shapes that do not fit, and for a weight that was changed
/// in place after its layout was made.
at::Tensor affine(const at::Tensor& x, const AffineWeight& weight, const at::Tensor& base);

}  // namespace deq::ops
