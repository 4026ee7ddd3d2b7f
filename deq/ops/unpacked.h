// A product with a weight that is read where it lies, once: a softmax's logits of a few rows, where
// laying a whole table out anew would cost more than they do.
#pragma once

#include <ATen/core/Tensor.h>

namespace deq::ops {

/// x W^T + bias, (N, n), for x (N, k), W (n, k) and bias (n). Without a tape, of float or double on
/// the CPU, a row of the result has the same bits whatever rows stand beside it and on any number
/// of threads; otherwise it is LibTorch's product. Throws deq::Error for shapes that do not fit.
at::Tensor unpacked_affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace deq::ops
