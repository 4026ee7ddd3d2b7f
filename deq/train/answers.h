// Problems answered one by one: what a person gets, and what is known of how far to trust it.
#pragma once

#include <functional>
#include <vector>

#include "deq/data/corpus.h"
#include "deq/models/model.h"

namespace deq {

/// Where an answer's solves begin.
struct StartsOptions {
  int64_t starts = 1;
  double start_std = 1.0;
  int64_t start_seed = 1;

  static void fields(auto& self, auto&& field) {
    field("starts", self.starts,
          "solve from so many states, the first of zeros, the others of random numbers; the one "
          "with the smallest residual answers",
          between(1, 1 << 20));
    field("start_std", self.start_std, "of the random numbers", above(0));
    field("start_seed", self.start_seed, "and their seed", at_least(0));
  }
};

/// How problems are solved.
struct AnswerOptions {
  EquilibriumOptions equilibrium;
  int64_t subsequence = 0;
  StartsOptions from;

  static void fields(auto& self, auto&& field) {
    EquilibriumOptions::solve_fields(self.equilibrium, field);
    field("eval_subsequence", self.subsequence, "positions solved at a time; 0: all",
          between(0, 1 << 20));
    field("", self.from);
  }
};

/// N(0, std) for each number of a state, float: the same for the same seed wherever they are drawn.
at::Tensor random_state(at::IntArrayRef shape, double std, uint64_t seed);

/// One problem's answer.
struct Answered {
  at::Tensor answer;  ///< as the problem, (L) or (H, W) int64: the likeliest symbol of each place;
                      ///< -1 where no probability is finite
  double residual = 0;      ///< the largest of the solve's rows; infinite where one is not finite,
                            ///< and of an explicit network, which has none
  bool converged = false;   ///< every row of that solve
  int64_t evaluations = 0;  ///< of f, in all solves together
  int64_t start = 0;        ///< which one answers, from 0
};

/// One problem (L) or (H, W), solved alone: nothing else can change its answer. No tape. Throws
/// deq::Error for starts of an explicit network, and for a model in training mode.
Answered answer_problem(Model& model, const at::Tensor& problem, const AnswerOptions& options);

/// The answer on its way: what the solve from `start` has after 1, 2, 4, 8, ... steps, before it
/// converges or ends. Each is a solve of its own that ends there.
struct OnTheWay {
  int64_t steps = 0;
  Answered found;
};
std::vector<OnTheWay> answer_along(Model& model, const at::Tensor& problem,
                                   const AnswerOptions& options, int64_t start);

/// One problem of a split, whose answer is known.
struct Judged {
  bool right = false;  ///< at each place that is scored
  double residual = 0;
  bool converged = false;
  int64_t evaluations = 0;
  std::vector<int64_t> extent;  ///< {L} or {H, W}
};

/// Every problem of a split, each solved alone, in order. `progress` hears the share done. Throws
/// deq::Error for a text, and as `answer_problem` does.
std::vector<Judged> judge(Model& model, const Split& split, const AnswerOptions& options,
                          const std::function<void(double)>& progress = {});

}  // namespace deq
