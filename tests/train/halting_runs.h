// Small runs that are trained to halt.
#pragma once

#include "deq/cells/convolution.h"
#include "deq/gradients/unrolled.h"
#include "deq/halting/act.h"
#include "deq/halting/change.h"
#include "deq/halting/ponder.h"
#include "deq/halting/residual.h"
#include "deq/halting/right_head.h"
#include "deq/solvers/picard.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/train/trainer.h"

namespace deq::testing {

/// Plain steps to an equilibrium, unrolled.
inline TrainOptions halting_options(const Halting& halting = Halting()) {
  TrainOptions options;
  options.task = PrefixSums{
      .length = 4, .test_lengths = {}, .problems = {.train = 24, .valid = 20, .test = 20}};
  options.model.cell = Convolution{.width = 5, .convolutions = 3};
  options.model.embedding.tie_weights = false;
  options.model.initial = {.init_std = 0.3, .embedding_init_std = 0.3};
  options.model.halting = halting;
  options.equilibrium = {.solver = Picard{}, .stop = {.max_steps = 6}, .gradient = Unrolled{4}};
  options.loop.batch = {.batch = 8};
  options.loop.optimization.optimizer = Sgd{};
  options.loop.optimization.schedule.rate = 0.1;
  options.loop.limits.steps = 20;
  return options;
}

/// Tied levels.
inline TrainOptions halting_levels(const Halting& halting = Halting()) {
  TrainOptions options = halting_options(halting);
  options.model.depth = {.depth = 4};
  return options;
}

inline std::vector<Halting> learned_rules() {
  return {AdaptiveHalting{}, PonderHalting{}, RightHead{}};
}

}  // namespace deq::testing
