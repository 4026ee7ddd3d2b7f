#include "deq/halting/ponder.h"

#include <ATen/ATen.h>

#include <cmath>
#include <random>

namespace deq {

using at::Tensor;

namespace {

/// In [0, 1), the same on every machine.
double uniform(int64_t seed, int64_t number) {
  std::seed_seq sequence{uint32_t(seed), uint32_t(seed >> 32), uint32_t(number),
                         uint32_t(number >> 32)};
  std::mt19937_64 random(sequence);
  return double(random() >> 11) * 0x1.0p-53;
}

class PonderJudge final : public HaltingJudge {
 public:
  PonderJudge(const Readout& readout, const PonderHalting& rule, int64_t first)
      : readout_(readout), rule_(rule), first_(first) {}

  Tensor halts(const PlainStep& step) override {
    const Tensor& z = step.next;
    const Tensor goes_on = at::log_sigmoid(-readout_.logits(z).to(at::kDouble));
    log_open_ = log_open_.defined() ? log_open_ + goes_on : goes_on;
    return (1 - log_open_.exp()).ge(reached(z));
  }
  Tensor left(const PlainStep& step, const Tensor&) override { return step.next; }

 private:
  /// (B), or one number for all.
  Tensor reached(const Tensor& z) {
    if (rule_.draw == 0) return at::full({1}, rule_.threshold, log_open_.options());
    if (drawn_.defined()) return drawn_;
    std::vector<double> drawn;
    for (int64_t b = 0; b < z.size(0); ++b) drawn.push_back(uniform(rule_.draw, first_ + b));
    return drawn_ = at::tensor(drawn, at::kDouble).to(z.device());
  }

  Readout readout_;
  PonderHalting rule_;
  int64_t first_;
  Tensor log_open_;  // (B) log of the probability of going on after each step so far
  Tensor drawn_;     // (B)
};

}  // namespace

Tensor log_halting(const Tensor& logits) {
  const int64_t N = logits.size(1);
  const Tensor goes_on = at::log_sigmoid(-logits).narrow(1, 0, N - 1).cumsum(1);
  const Tensor open = at::cat({at::zeros_like(logits.narrow(1, 0, 1)), goes_on}, 1);
  const Tensor halts = at::cat(
      {at::log_sigmoid(logits.narrow(1, 0, N - 1)), at::zeros_like(logits.narrow(1, 0, 1))}, 1);
  return open + halts;
}

Tensor divergence_from_geometric(const Tensor& log_p, double prior) {
  const int64_t N = log_p.size(1);
  const Tensor before = at::arange(0, N, log_p.options());
  const Tensor halts = at::full({N}, std::log(prior), log_p.options());
  halts.select(0, N - 1).zero_();
  const Tensor log_geometric = before * std::log1p(-prior) + halts;
  return (log_p.exp() * (log_p - log_geometric)).sum(1);
}

std::unique_ptr<HaltingJudge> PonderHalting::judge(const Readout& readout, int64_t first) const {
  return std::make_unique<PonderJudge>(readout, *this, first);
}

ChainLoss PonderHalting::loss(const Chain& chain) const {
  const Tensor log_p = log_halting(chain.logits), p = log_p.exp();
  const Tensor steps = at::arange(1, p.size(1) + 1, p.options());
  return {(p * chain.nats(chain.states)).sum(1),
          weight * divergence_from_geometric(log_p, prior).mean(), (p.detach() * steps).sum(1)};
}

}  // namespace deq
