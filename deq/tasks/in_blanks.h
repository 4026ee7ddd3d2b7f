// Problems whose answer stands behind them: symbols, an end, and a blank for each symbol of the
// answer, which is scored there.
#pragma once

#include "deq/data/corpus.h"
#include "deq/tasks/written.h"

namespace deq {

/// The symbols of a problem and of its answer, in the ids of their vocabularies.
struct Stated {
  std::vector<int64_t> problem;
  std::vector<int64_t> answer;
};

/// Throws deq::Error where training problems are of no length, or one of a test set of none or more
/// than 65536.
void check_lengths(int64_t least, int64_t length, const std::vector<int64_t>& test_lengths);

/// What is no symbol of a problem's.
struct BlankSymbols {
  int64_t end = 0;
  int64_t blank = 0;
};

/// (L) int64: the problem as a model reads it, with room for `answers` symbols.
at::Tensor with_blanks(const std::vector<int64_t>& problem, int64_t answers,
                       const BlankSymbols& symbols);

/// Side by side, padded to the largest; there are extents where they are of several.
Split answered_in_blanks(const std::vector<Stated>& stated, const BlankSymbols& symbols);

/// What stands before the end of a problem (L) that `with_blanks` gave.
std::vector<int64_t> before_end(const at::Tensor& problem, const BlankSymbols& symbols);

/// An answer (L) at the blanks alone.
std::vector<int64_t> in_blanks(const at::Tensor& problem, const at::Tensor& answer,
                               const BlankSymbols& symbols);

/// Where an answer (L) first differs from these symbols in the blanks: "another symbol at place 3
/// of the answer". Empty: nowhere.
std::string first_difference(const at::Tensor& problem, const at::Tensor& answer,
                             const std::vector<int64_t>& right, const BlankSymbols& symbols);

}  // namespace deq
