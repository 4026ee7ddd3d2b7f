#pragma once

#include <ATen/core/Tensor.h>

namespace deq {

/// y / sqrt(mean(y^2) + 1e-6) over the last dimension (Zhang and Sennrich 2019), without weights.
at::Tensor rms_normalised(const at::Tensor& y);

}  // namespace deq
