#include "deq/halting/change.h"

#include <ATen/ATen.h>

namespace deq {
namespace {

using at::Tensor;

constexpr int64_t kInARow = 2;

class ChangeJudge final : public HaltingJudge {
 public:
  ChangeJudge(const Readout& readout, double threshold)
      : readout_(readout), threshold_(threshold) {}

  Tensor halts(const PlainStep& step) override {
    const Tensor& z = step.next;
    const Tensor now = readout_.log_probabilities(z).exp();
    if (!before_.defined()) {
      still_ = at::zeros({now.size(0)}, now.options().dtype(at::kLong));
    } else {
      const Tensor moved = 0.5 * (now - before_).abs().sum(-1).flatten(1);
      const Tensor at_rest = std::get<0>(moved.max(1)).le(threshold_);
      still_ = (still_ + 1) * at_rest.to(at::kLong);
    }
    before_ = now;
    return still_.ge(kInARow);
  }
  Tensor left(const PlainStep& step, const Tensor&) override { return step.next; }

 private:
  Readout readout_;
  double threshold_;
  Tensor before_, still_;
};

}  // namespace

std::unique_ptr<HaltingJudge> HaltByChange::judge(const Readout& readout, int64_t) const {
  return std::make_unique<ChangeJudge>(readout, threshold);
}

}  // namespace deq
