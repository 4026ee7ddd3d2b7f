#include "deq/halting/right_head.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

namespace {

class RightJudge final : public HaltingJudge {
 public:
  RightJudge(const Readout& readout, double threshold) : readout_(readout), threshold_(threshold) {}

  Tensor halts(const PlainStep& step) override {
    const Tensor& z = step.next;
    return readout_.logits(z).sigmoid().gt(threshold_);
  }
  Tensor left(const PlainStep& step, const Tensor&) override { return step.next; }

 private:
  Readout readout_;
  double threshold_;
};

/// (B): the first step at which the head is above the threshold, or the last.
Tensor steps_of(const Tensor& logits, double threshold) {
  const int64_t N = logits.size(1);
  const Tensor halts = logits.detach().sigmoid().gt(threshold);
  const Tensor steps = at::arange(1, N + 1, logits.options()).expand_as(logits);
  return std::get<0>(at::where(halts, steps, at::full_like(steps, double(N))).min(1));
}

}  // namespace

std::unique_ptr<HaltingJudge> RightHead::judge(const Readout& readout, int64_t) const {
  return std::make_unique<RightJudge>(readout, threshold);
}

ChainLoss RightHead::loss(const Chain& chain) const {
  const Tensor right = chain.right(chain.states).to(chain.logits.scalar_type());
  // -log sigmoid(logit) where it is right, -log sigmoid(-logit) where it is not
  const Tensor entropy =
      -(right * at::log_sigmoid(chain.logits) + (1 - right) * at::log_sigmoid(-chain.logits));
  return {chain.nats({chain.states.back()}).squeeze(1), weight * entropy.mean(),
          steps_of(chain.logits, threshold)};
}

}  // namespace deq
