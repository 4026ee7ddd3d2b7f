// The row kernel of the softmax's loss.
#pragma once

#include <cstdint>

namespace deq::ops {

/// -log softmax(row)[target] of n logits. With `gradient` the row becomes its derivative by the
/// logits: softmax(row), less 1 at the target; else it is left in no particular state.
float softmax_row_loss(float* row, int64_t n, int64_t target, bool gradient);
double softmax_row_loss(double* row, int64_t n, int64_t target, bool gradient);

}  // namespace deq::ops
