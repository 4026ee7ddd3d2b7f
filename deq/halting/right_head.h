#pragma once

#include "deq/halting/halting.h"

namespace deq {

/// A head that says whether the answer is right now, as in Tiny Recursive Models (Jolicoeur-
/// Martineau 2025): trained by binary cross-entropy, at every step that has a tape, on whether all
/// targets are the likeliest answers there. A sample halts at the first step where the head's
/// probability is above the threshold. The loss of the answer is that of the last state, as without
/// the head.
struct RightHead {
  static constexpr const char* name = "head";
  static constexpr bool every_step = false;
  double threshold = 0.5;
  double weight = 0.5;
  double bias = -5.0;
  HaltingPool pool = HaltingPool::Least;

  static void fields(auto& self, auto&& field) {
    field("threshold", self.threshold, "halts where the answer is right with more probability",
          open_interval(0, 1));
    field("weight", self.weight, "of the head's cross-entropy in the loss", at_least(0));
    field("bias", self.bias, "of the halting unit at the start", any());
    field("pool", self.pool, "which of its places' numbers is a sample's: the least, or the mean");
  }
  std::unique_ptr<HaltingJudge> judge(const Readout& readout, int64_t first) const;
  ChainLoss loss(const Chain& chain) const;
};

}  // namespace deq
