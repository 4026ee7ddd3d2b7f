// The kernels of the softmax's loss. Logits, and what becomes of them, stand by word: a vector
// holds one word's logits of several rows, so that no sum runs within a vector, and neither the
// states nor the weight are laid out anew for the three products they take part in.
#pragma once

#include <cstdint>

#include "deq/ops/packed.h"

namespace deq::ops {

/// Words whose logits are worked on at a time: those of a block of rows stay in the second-level
/// cache.
constexpr int64_t kSoftmaxWords = 384;

/// Some rows of a softmax over V words of D features: states h (rows, D), weight W (V, D), bias b.
template <class T>
struct SoftmaxRows {
  int64_t rows = 0, features = 0, words = 0;
  const T *hidden = nullptr, *weight = nullptr, *bias = nullptr;
  const int64_t* targets = nullptr;
  T* by_word = nullptr;  ///< (V, columns); column r is that of row r
  int64_t columns = 0;   ///< at least softmax_columns(rows)

  T* losses = nullptr;  ///< (rows) -log softmax(h W^T + b)[target]
  /// (rows) times what the row's column then holds: its loss's derivative by its logits. A product
  /// with the column is scaled more cheaply than the column.
  T* shares = nullptr;
  T* gradients = nullptr;  ///< (rows, D) each loss's by its state, or none
};

/// Columns for so many rows: whole panels, and no stride that maps to few places of a cache.
template <class T>
int64_t softmax_columns(int64_t rows) {
  const int64_t W = panel_width<T>(), columns = (rows + W - 1) / W * W;
  return columns % (1024 / int64_t(sizeof(T))) == 0 ? columns + W : columns;
}

/// Numbers of scratch memory for `rows` rows.
template <class T>
int64_t softmax_scratch(int64_t rows, int64_t features) {
  const int64_t W = panel_width<T>();
  return packed_size<T>(features, rows) + 3 * (rows + W) + kSoftmaxWords * W;
}

/// Losses and shares of rows begin .. end - 1, their gradients where wanted, and their columns.
/// `begin` is a multiple of
/// panel_width().
void softmax_rows(const SoftmaxRows<float>& s, int64_t begin, int64_t end, float* scratch);
void softmax_rows(const SoftmaxRows<double>& s, int64_t begin, int64_t end, double* scratch);

/// Adds to the gradients of words begin .. end - 1, in weight (V, D) and bias (V), those of the sum
/// of all rows' losses; `scaled` are the states times their shares, packed (packed.h).
void softmax_words(const SoftmaxRows<float>& s, int64_t begin, int64_t end, const float* scaled,
                   float* weight, float* bias);
void softmax_words(const SoftmaxRows<double>& s, int64_t begin, int64_t end, const double* scaled,
                   double* weight, double* bias);

}  // namespace deq::ops
