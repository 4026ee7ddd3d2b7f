#pragma once

#include "deq/data/readers.h"
#include "deq/distributed/gradient_sum.h"
#include "deq/train/average.h"
#include "deq/train/carried.h"
#include "deq/train/evaluate.h"
#include "deq/train/objective.h"
#include "deq/train/remembered.h"
#include "deq/train/shard_sums.h"
#include "deq/train/shards.h"
#include "deq/train/weights.h"

namespace deq {

/// Training: segments of a text with history carried across them, or batches of whole sequences,
/// one step at a time. Everything that the next step depends on is in `state()`: a trainer that
/// restores it repeats every bit.
///
/// With `shards` a step is the ordered sum of theirs (docs/distributed.md): one process computes
/// them all, or several their own, to the same bits. What is drawn is then a function of seed,
/// step, segment and the first row of a shard, instead of coming from one generator's state. All
/// processes call the same members; of `corpus` each holds the same.
class Trainer {
 public:
  Trainer(const TrainOptions& options, Corpus corpus,
          std::shared_ptr<ProcessGroup> group = alone());

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

  /// Weights, optimiser, history, random numbers and position, by name. Of several processes each
  /// gets all of it.
  NamedTensors state() const;
  /// Throws deq::Error for a tensor that is missing or does not fit.
  void restore(const NamedTensors& state);

 private:
  ForwardOptions forward_of_this_step();
  double jacobian_weight() const;
  double rest_weight() const;
  Batch next_batch(ForwardOptions& how);
  /// Of one segment: its place among those of the step, as draws know it.
  struct Place {
    int64_t index = 0;
    size_t own = 0;  ///< of the process's shards
    bool last = true;
  };
  bool remembers() const;
  bool draw_jacobian(const Place& place);
  Pass pass_one(ForwardOptions how, const Batch& batch, const Place& place);
  ShardSums shard_of_step(const ForwardOptions& how, const std::vector<Batch>& batches,
                          int64_t segment, size_t own);
  void keep_states(const Batch& batch, int64_t segment);
  void seed_draws(int64_t segment, int64_t row) const;
  void descend(StepReport& report);
  double decided(double value) const;

  TrainOptions options_;
  Corpus corpus_;
  Shards shards_;
  std::shared_ptr<Model> model_;
  TrainingReader reader_;
  Schedule schedule_;
  std::unique_ptr<Descent> descent_;
  std::unique_ptr<Average> average_;
  std::unique_ptr<GradientSum> gradients_;  // where there are shards
  Carried carried_;
  Remembered remembered_;
  std::vector<Histories> histories_;  // of each shard of this process
  std::vector<at::Tensor> states_;    // where each of them ended
  int64_t step_ = 0;
};

}  // namespace deq
