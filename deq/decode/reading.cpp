#include "deq/decode/reading.h"

#include <algorithm>

namespace deq {

PromptReading reading_of(int64_t eval_length, int64_t eval_history, int64_t history) {
  const int64_t seen = eval_length + eval_history;  // by the last position, itself included
  if (history == 0 || history + 1 == seen) return {eval_length, std::max<int64_t>(1, seen - 1)};
  const double share = double(history + 1) / double(seen);
  return {std::clamp(int64_t(share * double(eval_length)), int64_t(1), eval_length), history};
}

}  // namespace deq
