// Path independence (Anil et al. 2022): whether a problem's equilibrium, and its answer, are the
// same wherever its solve begins.
#pragma once

#include "deq/measure/trials.h"

namespace deq {

/// How solves from another start compare with those from zeros, of the same problems.
struct PathRow {
  const char* from;      ///< where they start
  int64_t problems = 0;  ///< 0: there was none to compare
  double same = 0;       ///< share with the same answer
  double right = 0;      ///< share with the right answer, from this start
  double converged = 0;  ///< share of which both solves converged
  double distance = 0;   ///< |z - z'| / |z'| of the two states, mean
  double cosine = 0;     ///< of the two states, mean
};

/// From states that solves of other problems end in, from random ones N(0, std), from the problem's
/// own, and from that of its solution; at the largest limit. The last row compares the states of
/// different problems, from which cosine and distance are to be told: an offset common to all
/// states brings cosines near 1. Another problem is the one before it of the same extent, whatever
/// `options.batch`.
///
/// The state of a solution is that of the problem with its answer written in, where all problems
/// can hold theirs: `as_input` is the input symbol of each answer, -1 where there is none (empty:
/// none), and what is given must be as in the answer, as in a Sudoku. Whether f stays there says
/// that the solution is a fixed point, reached or not.
std::vector<PathRow> measure_paths(Model& model, const Split& split, const TrialOptions& options,
                                   const std::vector<int64_t>& as_input, int64_t seed, double std);

}  // namespace deq
