// Breadth: what several random starts of one problem give together.
#pragma once

#include "deq/measure/trials.h"

namespace deq {

/// N(0, std) for each number of a state. Those of a problem depend on its own number, on `start`
/// and on the seed alone, wherever it stands in a batch.
StartOf random_start(int64_t seed, double std, int64_t start);

/// Shares of a set's problems, for so many starts of at most so many steps each.
struct Breadth {
  int64_t starts = 1, limit = 0;
  double by_residual = 0;        ///< the start with the smallest residual answers, and is right
  double by_energy = kNoEnergy;  ///< the same with the lowest energy; NaN where f has none
  double majority = 0;           ///< the most frequent answer is right; of several the one with the
                                 ///< smallest residual
  double any = 0;                ///< some start is right: what a perfect judge would get of them
  double evaluations = 0;        ///< of f on one problem, all starts together, mean
};

/// For the first 1, 2, 4, ... of these and for all of them, at each limit. `starts` are trials of
/// one set, from one start each.
std::vector<Breadth> count_starts(const std::vector<Trials>& starts);

}  // namespace deq
