#include "deq/cells/norm.h"

#include <ATen/ATen.h>

namespace deq {

at::Tensor rms_normalised(const at::Tensor& y) {
  return y * (y.square().mean(-1, /*keepdim=*/true) + 1e-6).rsqrt();
}

}  // namespace deq
