// Problems as pictures that move: squares at the marks of a solve, coloured by their answers and by
// their residuals, with a slider. Without a network; the page brings its one script.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deq {

/// One problem on its way to an answer.
struct ProblemPicture {
  /// What stands there after so many steps.
  struct Frame {
    int64_t steps = 0;
    double residual = 0;                 ///< of all of it, relative
    std::vector<int64_t> answer;         ///< of each square, into `symbols`; -1: no answer there
    std::vector<double> residuals = {};  ///< of each square; empty: not known
  };
  std::string title;  ///< its number and what came of it
  int64_t rows = 1, columns = 1;
  std::vector<std::string> symbols;  ///< of problem and answers
  std::vector<int64_t> problem;      ///< of each square, row after row
  std::vector<int64_t> wanted;       ///< -1: not scored
  std::vector<Frame> frames;         ///< steps rising
};

/// HTML of one picture: two drawings, a slider and a line that tells of the square below the
/// pointer. What comes from data is escaped.
std::string draw_problem(const ProblemPicture& picture);

/// The script that all pictures of a page share, with its rules of style; once, behind them.
std::string picture_script();

}  // namespace deq
