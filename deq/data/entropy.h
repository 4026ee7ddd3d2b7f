// What a model that ignores its context would reach: the figure to beat.
#pragma once

#include <ATen/ATen.h>

namespace deq {

/// Mean -log2 p(token) over `split`, where p is the add-one smoothed frequency in `train`:
/// p(i) = (count(i) + 1) / (tokens + size). Both are (tokens,) int64 with ids below `size`.
double unigram_bits(const at::Tensor& train, const at::Tensor& split, int64_t size);

}  // namespace deq
