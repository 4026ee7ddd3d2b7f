#include "deq/cells/dropout.h"

#include <ATen/ATen.h>

namespace deq {

at::Tensor dropout_mask(at::IntArrayRef shape, double share, bool active, const at::Tensor& like) {
  if (!active || share == 0) return {};
  return at::empty(shape, like.options().requires_grad(false))
      .bernoulli_(1 - share)
      .div_(1 - share);
}

at::Tensor masked(const at::Tensor& x, const at::Tensor& mask) {
  return mask.defined() ? x * mask : x;
}

}  // namespace deq
