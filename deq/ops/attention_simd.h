// The row kernels of relative attention: softmax of shifted scores and its derivative, for one (T,
// K) block.
#pragma once

#include <cstdint>

namespace deq::ops {

/// One head of one sample. Query i sees keys first(i) <= j < last(i); of the position scores (T,
/// R), entry (i, j) stands at column T - 1 - i + j.
template <class T>
struct SoftmaxBlock {
  int64_t queries, past, keys, rows;  // T, M, K, R
  bool causal;
  int64_t window;     // 0: all
  T* scores;          // (T, K) in: content scores; out: probabilities, 0 where hidden
  const T* position;  // (T, R)
  const T* mask;      // (T, K) dropout mask, or null
  T* dropped;         // (T, K) out: probabilities * mask; unused without mask

  int64_t first(int64_t i) const {
    return window > 0 && past + i - window + 1 > 0 ? past + i - window + 1 : 0;
  }
  int64_t last(int64_t i) const {
    const int64_t own = past + i;  // the query's own key
    if (causal) return own + 1;
    return window > 0 && window < keys - own ? own + window : keys;  // no sum that could overflow
  }
};
void softmax_forward(const SoftmaxBlock<float>& block);
void softmax_forward(const SoftmaxBlock<double>& block);

/// gradient (T, K) in: with respect to the dropped probabilities; out: to the scores, 0 where
/// hidden. `shifted` (T, R) gets the same in the places of the position scores, 0 elsewhere.
/// `block.scores` holds the probabilities.
void softmax_backward(const SoftmaxBlock<float>& block, float* gradient, float* shifted);
void softmax_backward(const SoftmaxBlock<double>& block, double* gradient, double* shifted);

}  // namespace deq::ops
