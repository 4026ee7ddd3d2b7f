#include "deq/halting/residual.h"

#include <ATen/ATen.h>

namespace deq {
namespace {

using at::Tensor;

class ResidualJudge final : public HaltingJudge {
 public:
  explicit ResidualJudge(double threshold) : threshold_(threshold) {}

  Tensor halts(const PlainStep& step) override {
    const auto norm = [](const Tensor& t) { return t.to(at::kDouble).flatten(1).norm(2, {1}); };
    const Tensor moved = norm(step.fz - step.z), reached = norm(step.fz);
    return moved.le(threshold_ * reached).logical_and(reached.isfinite());
  }
  Tensor left(const PlainStep& step, const Tensor& halts) override {
    return at::where(beside_states(halts, step.z), step.z, step.next);
  }
  bool leaves_before() const override { return true; }

 private:
  double threshold_;
};

}  // namespace

std::unique_ptr<HaltingJudge> HaltByResidual::judge(const Readout&, int64_t) const {
  return std::make_unique<ResidualJudge>(threshold);
}

}  // namespace deq
