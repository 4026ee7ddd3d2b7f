// How a text that is to be continued is read and solved, unless told otherwise.
#pragma once

#include <cstdint>

namespace deq {

/// Training stops its solves early; a text is made of equilibria: steps of a solve at least.
inline constexpr int64_t kGenerationSteps = 100;

/// Positions of a prompt that are solved at once, and those that each sees.
struct PromptReading {
  int64_t length, history;
};

/// As the run's evaluation reads a text: pieces of `eval_length` behind `eval_history`. Where less
/// is to be seen than it does, `history` positions (0: as many), pieces and what stands before them
/// shrink alike.
PromptReading reading_of(int64_t eval_length, int64_t eval_history, int64_t history);

}  // namespace deq
