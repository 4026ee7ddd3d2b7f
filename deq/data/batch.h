// What a model is given at once, from any kind of data.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace deq {

/// As `answer` of a batch or a split: every position that is scored holds the answer.
inline constexpr int64_t kEveryPosition = -1;

/// Problems that stand alone, side by side, or segments of texts.
///
/// Of a text, row b of `targets` is row b of `tokens` one position later. Rows continue those of
/// the batch before, whose history they may use, unless `reset`; but for those in `anew`.
struct Batch {
  at::Tensor tokens;       ///< (B, T) int64; of grids (B, H, W)
  at::Tensor targets;      ///< of the same shape, int64; -1: not scored
  int64_t first_lane = 0;  ///< lane, or number, of row 0; row b is first_lane + b
  bool reset = false;      ///< forget history: an epoch, or another batch of lanes, begins
  int64_t answer = 0;      ///< last positions that hold the answer, or all; 0: none do
  /// Of problems that are trained on, the number of each in its split.
  std::vector<int64_t> problems = {};
  std::vector<int64_t> anew = {};  ///< rows that forget their history: a text begins there
};

}  // namespace deq
