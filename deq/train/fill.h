// Holes in a text, all of them found as one equilibrium, and then one after the other.
#pragma once

#include <utility>
#include <vector>

#include "deq/models/model.h"

namespace deq {

/// How holes are decided.
struct FillOptions {
  EquilibriumOptions equilibrium;
  int64_t refine = 0;
  int64_t alternatives = 3;

  static void fields(auto& self, auto&& field) {
    EquilibriumOptions::solve_fields(self.equilibrium, field);
    field("refine", self.refine,
          "decide the surest holes first and solve for the others again, from where it stood, so "
          "many times; as many as there are holes: one by one; 0: all at once",
          between(0, 1 << 20));
    field("alternatives", self.alternatives, "characters shown of each hole, likeliest first",
          between(1, 1 << 16));
  }
};

/// One hole.
struct FilledHole {
  int64_t place = 0;
  /// Answers and their probabilities, likeliest first, in the solve in which it was decided.
  std::vector<std::pair<int64_t, double>> alternatives;
  int64_t solve = 0;  ///< which one that was, from 0
};

/// A text without holes.
struct Filled {
  at::Tensor answer;  ///< (L) int64: an answer in each hole, -1 elsewhere, and where no probability
                      ///< is finite
  std::vector<FilledHole> holes;  ///< in the order of the text
  double residual = 0;            ///< the largest of all solves; infinite where one is not finite,
                                  ///< and of an explicit network, which has none
  bool converged = false;         ///< every solve
  int64_t evaluations = 0, solves = 0;
};

/// Fills the holes of a text (L) int64, the places that hold `hole`. `as_input` says which input
/// each answer is. No tape. Throws deq::Error for a text without a hole and a model in training
/// mode.
Filled fill(Model& model, const at::Tensor& text, int64_t hole,
            const std::vector<int64_t>& as_input, const FillOptions& options);

}  // namespace deq
