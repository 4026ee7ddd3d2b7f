// Real values as ids, so that whatever carries symbols carries values too: streams, shards, carried
// states, checkpoints, and -1 for what is not scored.
//
// A value stands on one of 2^62 levels, 2^-32 apart, around 0. Of values scaled to a standard
// deviation of 1 that is finer than a float wherever |value| > 2^-8, and it is the same number on
// every machine.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace deq {

inline constexpr int64_t kMissing = 0;                   ///< there is a value, which nobody knows
inline constexpr int64_t kAsked = 1;                     ///< a value to be found
inline constexpr int64_t kMarks = 2;                     ///< ids that are no values
inline constexpr int64_t kZeroLevel = int64_t{1} << 61;  ///< the id of 0
inline constexpr int64_t kLevels = int64_t{1} << 62;     ///< ids are below it
inline constexpr double kLevelStep = 0x1p-32;
inline constexpr double kLargestValue = 0x1p28;  ///< in magnitude

/// The level nearest to a value; kMissing for NaN. |value| <= kLargestValue.
int64_t level_of(double value);

/// Values of ids, double on their device; 0 for marks, and for what is negative.
at::Tensor values_of(const at::Tensor& ids);

/// Whether ids are values, bool.
at::Tensor known_values(const at::Tensor& ids);

}  // namespace deq
