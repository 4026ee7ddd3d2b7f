// What a step was like, and what its shards were like, as numbers that add up.
#pragma once

#include "deq/train/objective.h"
#include "deq/train/shards.h"

namespace deq {

/// What one step was like; means over its segments where there are several. What only some segments
/// have is a mean over those, and 0 where none has it.
struct StepReport {
  int64_t step = 0;
  double loss = 0;                 ///< nats per token
  int64_t jacobian_estimates = 0;  ///< segments where |J|_F^2 / n was estimated
  double jacobian = 0;             ///< their mean
  double gradient_norm = 0;        ///< before clipping
  double rate = 0;
  double halting = 0;        ///< what a learned halting rule adds to the loss
  double halting_steps = 0;  ///< at which samples halt, mean; 0 without such a rule
  double rest = 0;      ///< |f(z) - z|^2 / |f(z)|^2 of those that are right; 0 without rest-weight
  double residual = 0;  ///< mean over rows, forward
  double converged_share = 0;
  double evaluations = 0;      ///< of f, forward, per solve
  int64_t adjoint_solves = 0;  ///< 0: the gradient has no adjoint
  double adjoint_residual = 0;
  double adjoint_converged_share = 0;
  double adjoint_evaluations = 0;
  int64_t depth = 0;  ///< levels of an explicit network, which has no residual; 0: equilibria
  bool pretraining = false;
  int64_t processes = 1;
  /// Of several processes the mean over them of the share of the slowest's passes that each waited
  /// for it.
  double waited = 0;
  /// False, and the step was not taken, where the loss, a gradient or a row of an adjoint was not.
  bool finite = true;
};

/// What the passes of one shard in one segment of a step add up to, each weighed by its share of
/// the rows. All are double, so that they travel as a row of a tensor.
struct ShardSums {
  double loss = 0;
  double jacobian_estimates = 0;
  double jacobian = 0;
  double rest = 0;
  double halting = 0;
  double halting_steps = 0;
  double residual = 0;
  double converged_share = 0;
  double evaluations = 0;
  double adjoint_solves = 0;
  double adjoint_residual = 0;
  double adjoint_converged_share = 0;
  double adjoint_evaluations = 0;
  double not_finite = 0;  ///< adjoints with such rows
  double seconds = 0;     ///< of its passes

  void add(const Pass& pass, double rows);
};

/// Adds those of all shards, in order, to sums of which `finish` makes means: `own` are those of
/// this process's. Waiting is not part of it.
void add_shards(const Shards& shards, const std::vector<ShardSums>& own, StepReport& report);

/// Makes means of sums over so many batches, whose gradients were so many steps.
void finish(StepReport& report, int64_t batches, int64_t descents);

}  // namespace deq
