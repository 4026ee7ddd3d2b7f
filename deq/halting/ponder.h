#pragma once

#include "deq/halting/halting.h"

namespace deq {

/// PonderNet (Banino et al. 2021), of a sample. With lambda_n = sigmoid(unit(z_n)) it halts at step
/// n with probability p_n = lambda_n prod_{j<n} (1 - lambda_j); at the last of N steps it halts
/// with what is left. The loss is the expected one, sum of p_n L(z_n), and `weight` KL(p || G), G
/// the geometric distribution of `prior` whose last step has what is left as well. At test it halts
/// at the first step at which the probability of having halted reaches the threshold; or at a step
/// that is drawn from p, a function of `draw` and the sample's number alone.
struct PonderHalting {
  static constexpr const char* name = "ponder";
  static constexpr bool every_step = true;
  double threshold = 0.5;
  double prior = 0.1;
  double weight = 0.1;
  double bias = -2.0;
  HaltingPool pool = HaltingPool::Least;
  int64_t draw = 0;

  static void fields(auto& self, auto&& field) {
    field("threshold", self.threshold,
          "halts where the probability of having halted reaches this, unless steps are drawn",
          open_interval(0, 1));
    field("prior", self.prior, "probability of each step in the geometric prior",
          open_interval(0, 1));
    field("weight", self.weight, "of the divergence from the prior in the loss", at_least(0));
    field("bias", self.bias, "of the halting unit at the start", any());
    field("pool", self.pool, "which of its places' numbers is a sample's: the least, or the mean");
    field("draw", self.draw, "seed of steps that are drawn as in training; 0: none are",
          at_least(0));
  }
  std::unique_ptr<HaltingJudge> judge(const Readout& readout, int64_t first) const;
  ChainLoss loss(const Chain& chain) const;
};

/// log p_n of logits (B, N), which are those of lambda: (B, N), whose exponentials sum to 1.
at::Tensor log_halting(const at::Tensor& logits);
/// KL(p || G) in nats, (B), of log p (B, N).
at::Tensor divergence_from_geometric(const at::Tensor& log_p, double prior);

}  // namespace deq
