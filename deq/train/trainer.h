#pragma once

#include "deq/data/readers.h"
#include "deq/train/average.h"
#include "deq/train/carried.h"
#include "deq/train/evaluate.h"
#include "deq/train/objective.h"
#include "deq/train/weights.h"

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
  /// False, and the step was not taken, where the loss, a gradient or a row of an adjoint was not.
  bool finite = true;
};

/// Training: segments of a text with history carried across them, or batches of whole sequences,
/// one step at a time. Everything that the next step depends on is in `state()`: a trainer that
/// restores it repeats every bit.
class Trainer {
 public:
  Trainer(const TrainOptions& options, Corpus corpus);

  StepReport step();
  Evaluation evaluate_valid(const std::function<void(double)>& progress = {});
  Evaluation evaluate_test(const std::function<void(double)>& progress = {});

  int64_t steps_done() const { return step_; }
  int64_t tokens_per_step() const;
  Model& model() { return *model_; }
  const Model& model() const { return *model_; }
  const Corpus& corpus() const { return corpus_; }
  Schedule& schedule() { return schedule_; }
  /// The weights to keep: with `ema` their average, otherwise the model's own.
  NamedTensors weights() const;

  /// Weights, optimiser, history, random numbers and position, by name.
  NamedTensors state() const;
  /// Throws deq::Error for a tensor that is missing or does not fit.
  void restore(const NamedTensors& state);

 private:
  ForwardOptions forward_of_this_step();
  double jacobian_weight() const;
  double rest_weight() const;
  void check_options() const;
  Batch next_batch(ForwardOptions& how);
  Pass pass_one(ForwardOptions how, const Batch& batch);
  void descend(StepReport& report);

  TrainOptions options_;
  Corpus corpus_;
  std::shared_ptr<Model> model_;
  TrainingReader reader_;
  Schedule schedule_;
  std::unique_ptr<Descent> descent_;
  std::unique_ptr<Average> average_;
  Carried carried_;
  Histories histories_;
  int64_t step_ = 0;
};

}  // namespace deq
