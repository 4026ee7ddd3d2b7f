// The gradient of a weight by the kernels' own product: unlike a BLAS's, its bits do not depend on
// the number of threads, nor its speed on whether the BLAS knows the processor.
#pragma once

#include <ATen/core/Tensor.h>

namespace deq::ops {

/// dy^T x (n, k), for dy (rows, n) and x (rows, k): the gradient of W in y = x W^T. Of float or
/// double on the CPU the kernel, of others, and where a tape is recorded, LibTorch's product.
at::Tensor weight_gradient(const at::Tensor& dy, const at::Tensor& x);

/// The sum of the rows of dy (rows, n), (n): the gradient of b in y = x + b. As above.
at::Tensor bias_gradient(const at::Tensor& dy);

}  // namespace deq::ops
