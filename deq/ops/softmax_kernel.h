// The row kernel of the softmax's loss.
#pragma once

#include <cstdint>

namespace deq::ops {

/// What a row of logits comes to.
template <class T>
struct SoftmaxRow {
  T loss;   ///< -log softmax(row + bias)[target]
  T share;  ///< times what the row then holds: its derivative by the logits
};

/// Of n logits less their bias. The row becomes softmax(row + bias), less 1 at the target, divided
/// by `share`: a product with it is scaled more cheaply than the row.
SoftmaxRow<float> softmax_row(float* row, const float* bias, int64_t n, int64_t target);
SoftmaxRow<double> softmax_row(double* row, const double* bias, int64_t n, int64_t target);

}  // namespace deq::ops
