// Variational dropout (Gal and Ghahramani 2016): a mask that is drawn once per solve, forward and
// backward.
#pragma once

#include <ATen/core/Tensor.h>

namespace deq {

/// Bernoulli(1 - share) / (1 - share), of the given shape and the type and device of `like`;
/// undefined when `active` is false or share is 0. Dimensions of size 1 share their draw.
at::Tensor dropout_mask(at::IntArrayRef shape, double share, bool active, const at::Tensor& like);

/// x * mask, or x where the mask is undefined.
at::Tensor masked(const at::Tensor& x, const at::Tensor& mask);

}  // namespace deq
