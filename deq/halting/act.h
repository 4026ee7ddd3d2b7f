#pragma once

#include "deq/halting/halting.h"

namespace deq {

/// Adaptive computation time (Graves 2016), of a sample. With h_n = sigmoid(unit(z_n)) it halts at
/// the first N where h_1 + ... + h_N reaches the threshold, 1 - epsilon, or where the steps end;
/// p_n = h_n before, p_N = 1 - (h_1 + ... + h_{N-1}), the remainder R. What it answers from is the
/// mean of the states, sum of p_n z_n, which is no equilibrium even where z_N is one. The ponder
/// cost N + R stands in the loss, where N has no gradient.
struct AdaptiveHalting {
  static constexpr const char* name = "act";
  static constexpr bool every_step = true;
  double threshold = 0.99;
  double cost = 0.01;
  double bias = -2.0;
  HaltingPool pool = HaltingPool::Least;

  static void fields(auto& self, auto&& field) {
    field("threshold", self.threshold, "halts where the sum of its halting numbers reaches this",
          open_interval(0, 1));
    field("cost", self.cost, "weight of steps and remainder in the loss", at_least(0));
    field("bias", self.bias, "of the halting unit at the start", any());
    field("pool", self.pool, "which of its places' numbers is a sample's: the least, or the mean");
  }
  std::unique_ptr<HaltingJudge> judge(const Readout& readout, int64_t first) const;
  ChainLoss loss(const Chain& chain) const;
};

/// What adaptive computation time makes of logits (B, N).
struct AdaptiveWeights {
  at::Tensor p;          ///< (B, N), which sum to 1 over N
  at::Tensor remainder;  ///< (B) R
  at::Tensor steps;      ///< (B) N, of the logits' type, without a tape
};
AdaptiveWeights adaptive_weights(const at::Tensor& logits, double threshold);

}  // namespace deq
