#pragma once

#include <string>
#include <vector>

#include "deq/runs/run.h"

namespace deq {

/// A few solves of a run's model on a passage of its data, looked at step by step.
struct Passage {
  struct Position {
    std::string token;  ///< as the vocabulary has it: of bytes perhaps no UTF-8
    int64_t steps = 0;  ///< of the solver until it was done
    bool converged = false;
  };
  /// Samples of one batch.
  std::vector<std::vector<Position>> samples;
  /// traces[b][s]: median relative residual of sample b's positions before step s + 1.
  std::vector<std::vector<double>> traces;
  bool spaced = false;  ///< tokens stand between white space
  int64_t history = 0;  ///< positions before each sample that it saw
  int64_t part = 0;     ///< positions solved at a time; 0: all
  int64_t max_steps = 0;
  double rel_tol = 0;
};

/// What stands at a place of a problem or text; of a row of symbols or values its number.
std::string symbol_at(const Vocabulary& vocabulary, const at::Tensor& tokens, int64_t place);

/// The first `count` segments of the split, each of the run's eval-length behind as many positions
/// (sequences as they are), solved as the run's evaluation does. Throws deq::Error for an explicit
/// network, for solves without a residual by step (a cell that meets a condition of its own), and
/// for a split too short for one segment.
Passage solve_passage(const TrainedModel& run, const Split& split, int64_t count);

}  // namespace deq
