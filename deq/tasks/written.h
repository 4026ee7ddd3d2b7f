// How problems and answers stand in a text that a person wrote, or reads.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

#include "deq/data/vocabulary.h"

namespace deq {

/// A problem as it was read.
struct WrittenProblem {
  at::Tensor tokens;  ///< (L) int64; of a grid (H, W)
  int64_t line = 1;   ///< of the text, from 1: where it begins
};

/// Lines of a text that belong together.
struct LineBlock {
  std::vector<std::string_view> lines;  ///< without their ends; none is blank
  int64_t line = 1;                     ///< of the first
};
/// What blank lines part.
std::vector<LineBlock> line_blocks(std::string_view text);

/// "puzzles.txt, line 3", for messages.
std::string at_line(const std::string& source, int64_t line);

/// Ids of the symbols of `text`, which white space separates; where each of the vocabulary's is one
/// character it need not. Throws deq::Error, which begins with `where`, for a symbol that is not in
/// the vocabulary.
std::vector<int64_t> read_symbols(std::string_view text, const Vocabulary& vocabulary,
                                  const std::string& where);

/// Sequences (`dimensions` 1), one a line; or grids (2), one a line with its rows joined by '/', or
/// a row a line and a blank line between grids. Throws deq::Error, with source and line, for an
/// unknown symbol, for rows that are not of one length, and for a text without a problem.
std::vector<WrittenProblem> read_problems(std::string_view text, const std::string& source,
                                          const Vocabulary& vocabulary, int64_t dimensions);

/// How symbols and rows are joined.
struct Joined {
  const char* symbols = " ";
  const char* rows = " / ";
};
/// Of tokens (L) or (H, W); '?' for a token that is negative: none.
std::string write_symbols(const at::Tensor& tokens, const Vocabulary& vocabulary,
                          const Joined& joined = {});

/// A problem, or its answer, that is to be shown.
struct Shown {
  at::Tensor problem;  ///< (L) or (H, W) int64
  at::Tensor answer;   ///< alike; negative: none. Undefined: the problem itself is shown
  const Vocabulary& inputs;
  const Vocabulary& answers;
  bool picture = false;  ///< as many lines as it takes, or else one
};

}  // namespace deq
