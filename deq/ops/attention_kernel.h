// The kernels of relative attention for one head of one sample: scores and probabilities of a block
// of queries at a time, never the whole matrix.
#pragma once

#include <cstdint>

#include "deq/ops/strided.h"

namespace deq::ops {

/// Which keys each query sees. Keys first(i) <= j < last(i); key j < past is of the past.
struct AttentionSpan {
  int64_t queries = 0, past = 0;  // T, M
  bool causal = true;
  int64_t window = 0;  // 0: all
  int64_t hidden = 0;  // the first keys of the past, which nobody sees

  int64_t keys() const { return past + queries; }
  int64_t first(int64_t i) const {
    const int64_t nearest = window > 0 ? past + i - window + 1 : 0;
    return nearest > hidden ? nearest : hidden;
  }
  int64_t last(int64_t i) const {
    const int64_t own = past + i;  // the query's own key
    if (causal) return own + 1;
    return window > 0 && window < keys() - own ? own + window : keys();  // a sum could overflow
  }
};

/// Keys and values of n positions, or the projected positions in place of keys, packed (packed.h):
/// `keys` (d, n) and `values` (n, d) for the scores and their results; the other two for backward.
/// Panels of (n, d) matrices stand `panel` numbers apart.
template <class T>
struct PackedKeys {
  const T* keys = nullptr;
  const T* values = nullptr;
  const T* key_rows = nullptr;       // (n, d)
  const T* value_columns = nullptr;  // (d, n)
  int64_t panel = 0;
};

/// One head of one sample: what its kernels read and write.
template <class T>
struct AttentionHead {
  AttentionSpan span;
  int64_t done = 0;         // queries before this one are left out
  int64_t width = 0;        // d
  Strided<T> q, k, v;       // (T, d)
  PackedKeys<T> past;       // of M positions
  PackedKeys<T> positions;  // of `rows` distances; query i meets key j in row T - 1 - i + j +
                            // first_row
  int64_t rows = 0, first_row = 0;
  const T* content_bias = nullptr;   // (d)
  const T* position_bias = nullptr;  // (d)
  const T* mask = nullptr;           // (T, K) dropout mask on the probabilities, or none
};

/// Numbers of scratch memory that a head needs.
template <class T>
int64_t attention_scratch(const AttentionSpan& span, int64_t width, bool backward);

/// y (T, d), rows `y_row` apart, and where asked for log sum_j exp(score_ij) of every query from
/// `done` on.
void attention_head(const AttentionHead<float>& head, float* y, int64_t y_row, float* log_sum,
                    float* scratch);
void attention_head(const AttentionHead<double>& head, double* y, int64_t y_row, double* log_sum,
                    double* scratch);

/// Where gradients go; rows of q, k and v `row` apart. Those after v only where `positions` is set.
template <class T>
struct HeadGradients {
  T *q = nullptr, *k = nullptr, *v = nullptr;
  int64_t row = 0;
  T *past_k = nullptr, *past_v = nullptr;  // (M, d), rows `past_row` apart
  int64_t past_row = 0;
  T* positions = nullptr;  // (rows, d), rows `positions_row` apart
  int64_t positions_row = 0;
  T *content_bias = nullptr, *position_bias = nullptr;  // (d)
};

/// From dy, the gradient of y; y and log_sum as attention_head gave them.
void attention_head_backward(const AttentionHead<float>& head, Strided<float> y,
                             const float* log_sum, Strided<float> dy,
                             const HeadGradients<float>& out, float* scratch);
void attention_head_backward(const AttentionHead<double>& head, Strided<double> y,
                             const double* log_sum, Strided<double> dy,
                             const HeadGradients<double>& out, double* scratch);

}  // namespace deq::ops
