#include "deq/halting/act.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

namespace {

class AdaptiveJudge final : public HaltingJudge {
 public:
  AdaptiveJudge(const Readout& readout, double threshold)
      : readout_(readout), threshold_(threshold) {}

  Tensor halts(const PlainStep& step) override {
    const Tensor& z = step.next;
    h_ = readout_.logits(z).sigmoid();
    before_ = sum_.defined() ? sum_ : at::zeros_like(h_);
    mean_before_ = mean_.defined() ? mean_ : at::zeros_like(z);
    sum_ = before_ + h_;
    mean_ = mean_before_ + beside_states(h_, z) * z;
    return sum_.ge(threshold_);
  }
  Tensor left(const PlainStep& step, const Tensor&) override {
    const Tensor& z = step.next;
    return mean_before_ + beside_states(1 - before_, z) * z;
  }

 private:
  Readout readout_;
  double threshold_;
  Tensor h_, sum_, before_;    // (B)
  Tensor mean_, mean_before_;  // (B, ..., D) sum of h_n z_n
};

}  // namespace

AdaptiveWeights adaptive_weights(const Tensor& logits, double threshold) {
  const int64_t N = logits.size(1);
  const Tensor h = logits.sigmoid(), sum = h.cumsum(1), before = sum - h;
  const Tensor last = at::arange(1, N + 1, logits.device()).eq(N).unsqueeze(0);
  // The sums as they were, so that rounding halts no step twice or never.
  const Tensor reached = sum.detach().ge(threshold);
  const Tensor earlier =
      at::cat({at::zeros({h.size(0), 1}, reached.options()), reached.narrow(1, 0, N - 1)}, 1);
  const Tensor halts = reached.logical_or(last).logical_and(earlier.logical_not());
  const Tensor running = reached.logical_or(last).logical_not();
  AdaptiveWeights found;
  found.remainder = ((1 - before) * halts).sum(1);
  found.p = h * running + (1 - before) * halts;
  found.steps = (running.sum(1) + 1).to(logits.scalar_type());
  return found;
}

std::unique_ptr<HaltingJudge> AdaptiveHalting::judge(const Readout& readout, int64_t) const {
  return std::make_unique<AdaptiveJudge>(readout, threshold);
}

ChainLoss AdaptiveHalting::loss(const Chain& chain) const {
  const AdaptiveWeights weights = adaptive_weights(chain.logits, threshold);
  Tensor mean;
  for (size_t n = 0; n < chain.states.size(); ++n) {
    const Tensor& z = chain.states[n];
    const Tensor part = beside_states(weights.p.select(1, int64_t(n)), z) * z;
    mean = mean.defined() ? mean + part : part;
  }
  return {chain.nats({mean}).squeeze(1), cost * (weights.steps + weights.remainder).mean(),
          weights.steps};
}

}  // namespace deq
