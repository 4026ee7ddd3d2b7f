// Test-time compute: accuracy, residual and cost of a run against its step limit and against the
// number of its starts, for every test set.
#pragma once

#include <string>

#include "deq/measure/paths.h"
#include "deq/measure/starts.h"
#include "deq/measure/verdict.h"
#include "deq/report/problem_picture.h"
#include "deq/runs/run.h"

namespace deq {

/// What a sweep is told.
struct SweepOptions {
  std::vector<int64_t> limits = {};
  std::string sets = "";
  int64_t problems = 100;
  int64_t starts = 4;
  int64_t paths = 32;
  int64_t pictures = 3;
  double start_std = 1.0;
  int64_t start_seed = 1;
  std::string halting = "residual:1e-2,change:1e-2,trained";

  static void fields(auto& self, auto&& field) {
    field("limits", self.limits,
          "step limits; empty: 1, 2, 4, 8 and 16 times that of training, or --max-steps");
    field("sets", self.sets, "test sets, as test,64; empty: test and all further ones");
    field("problems", self.problems, "of each test set, its first; 0: all", between(0, 1 << 24));
    field("starts", self.starts,
          "random starts of each problem at most, besides the one from zeros", between(1, 4096));
    field("paths", self.paths, "problems of each set solved from other starts; 0: none",
          between(0, 1 << 20));
    field("pictures", self.pictures, "problems of each set drawn along their solves",
          between(0, 64));
    field("start_std", self.start_std, "of random starts", above(0));
    field("start_seed", self.start_seed, "of random starts", at_least(0));
    field("halting", self.halting,
          "rules by which solves end, with thresholds: residual, change; trained: what the run was "
          "trained to halt by; none: none");
  }
};

/// All problems of a set at one limit.
struct SweptLimit {
  int64_t max_steps = 0;     ///< of an explicit network its depth
  double accuracy = 0;       ///< share of problems with every place right, as `deq eval` has it
  double best_accuracy = 0;  ///< of the iterates with the smallest residual so far
  double places = 0;         ///< share of scored places that are right, mean over problems
  double evaluations = 0;    ///< of f on one problem, mean: each is counted until it is done
  double operations = 0;     ///< of these evaluations; NaN where the cell does not count them
  double seconds = 0;        ///< for each problem
  Verdicts verdicts;
  double roc = 0, roc_worst = 0;  ///< roc_area of the residual, and of the worst position's
  /// Medians over the right problems and over the wrong ones; NaN without any.
  double residual_right = 0, residual_wrong = 0, worst_right = 0, worst_wrong = 0;
};

/// All problems of a set whose solves end by one rule, or at the largest limit.
struct HaltedSet {
  std::string rule;
  double accuracy = 0, evaluations = 0;  ///< as in SweptLimit
  Verdicts verdicts;                     ///< of the states that they ended in, judged by f
};

/// One test set under one run.
struct SweptSet {
  std::string name;
  int64_t problems = 0;
  int64_t positions = 0;  ///< of its largest problem
  Trials trials;          ///< from zeros
  std::vector<SweptLimit> limits;
  std::vector<HaltedSet> halted;  ///< empty of levels that are not tied
  std::vector<Breadth> breadth;   ///< empty of an explicit network, as is what follows
  std::vector<PathRow> paths;
  std::vector<ProblemPicture> pictures;

  /// Numbers of the problems that converged at the largest limit and are wrong.
  std::vector<int64_t> converged_wrong() const;
  /// Of those that converged at the largest limit; NaN without any.
  double evaluations_to_converge() const;
};

/// One run: a seed.
struct SweptRun {
  std::string name, folder;
  int64_t depth = 0;       ///< of an explicit network; 0: equilibria
  int64_t parameters = 0;  ///< all
  int64_t trained = 0;     ///< steps at most in training
  std::string solver;
  StopRule stop;
  std::vector<SweptSet> sets;
};

/// The steps that a run was trained with at most: those of its unrolled chain, or else its limit.
int64_t trained_steps(const TrainOptions& options);

/// Throws deq::Error for a run of texts, and for one that solves a part of its positions at a time.
void check_sweepable(const TrainedModel& run);

/// `equilibrium` and `batch` say how the run is solved and how many problems stand side by side;
/// its max_steps is what limits are multiples of. With `pictures` some problems are drawn.
/// `progress` hears the share done and what is done. Throws deq::Error as check_sweepable, for an
/// unknown set and for a limit below 1.
SweptRun sweep_run(const TrainedModel& run, const std::string& name, const Corpus& corpus,
                   const EquilibriumOptions& equilibrium, int64_t batch,
                   const SweepOptions& options, bool pictures,
                   const std::function<void(double, const std::string&)>& progress = {});

}  // namespace deq
