// What networks cost beside each other (Bai et al. 2019, Tables 2 to 4): the metric of the test
// split, the memory of a training step, and time per token in training, evaluation and decoding.
#pragma once

#include "deq/measure/measurement.h"
#include "deq/runs/run.h"

namespace deq {

/// What measure_cost is told.
struct CostOptions {
  int64_t tokens = 0;
  int64_t max_steps = 100;
  int64_t train = 10;
  int64_t decode = 100;

  static void fields(auto& self, auto&& field) {
    field("tokens", self.tokens, "of the test split, or sequences; 0: all", at_least(0));
    field("max_steps", self.max_steps, "of the solver at most, in evaluation and decoding",
          at_least(1));
    field("train", self.train, "training steps that are timed", between(1, 4096));
    field("decode", self.decode, "tokens that are decoded one by one; 0: none",
          between(0, 1 << 20));
  }
};

/// One row, of an equilibrium or an explicit network. Training: mean of whole steps of the run's
/// configuration, the optimiser's part included, from these weights on, none of them shallow; its
/// memory is that of tensors alive at the peak, gradients included, besides parameters and the
/// optimiser's state. Evaluation as `deq eval` does it, with as many solver steps. Decoding: each
/// token of the test split in turn, batch 1, behind as many positions as evaluation sees. The
/// weights of `run` stay as they are. Throws deq::Error for a test split too short to decode.
Measurement measure_cost(const TrainedModel& run, const std::string& name, const Corpus& corpus,
                         const CostOptions& options,
                         const std::function<void(double)>& progress = {});

}  // namespace deq
