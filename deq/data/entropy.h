// What a model that ignores its context would reach: the figure to beat.
#pragma once

#include <ATen/ATen.h>

#include "deq/data/corpus.h"

namespace deq {

/// Mean -log2 p(token) over `split`, where p is the add-one smoothed frequency in `train`:
/// p(i) = (count(i) + 1) / (tokens + size). Both are (tokens,) int64 with ids below `size`.
double unigram_bits(const at::Tensor& train, const at::Tensor& split, int64_t size);

/// The same for sequences, in nats: the mean -log p(target | position) over the targets of `split`
/// that are scored, where p at each position is the frequency among the targets of `train` there,
/// p(i) = (count(i) + 1 / size) / (targets + 1). Both of sequences of one length, with target ids
/// below `size`. (Smoothed by less than `unigram_bits`: most positions have one target only, and
/// add-one would charge them more than all others.)
double positional_nats(const Split& train, const Split& split, int64_t size);

}  // namespace deq
