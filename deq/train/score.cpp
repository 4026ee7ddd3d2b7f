#include "deq/train/score.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

Losses losses_of(const LanguageModel& model, const Tensor& z, const Tensor& targets) {
  return {model.loss(z, targets), targets.ge(0).sum().item<int64_t>()};
}

void AnswerScore::add(const AnswerScore& other) {
  nats += other.nats;
  targets += other.targets;
  exact += other.exact;
}

AnswerScore score_answer(const LanguageModel& model, const Tensor& z, const Losses& losses,
                         const Segment& segment) {
  const int64_t first = z.size(1) - segment.answer;
  const auto answer = [&](const Tensor& all) { return all.narrow(1, first, segment.answer); };
  const Tensor wanted = answer(segment.targets).to(z.device());  // (B, answer)
  const auto [best, likeliest] = model.log_probabilities(answer(z)).max(2);
  const Tensor right = likeliest.eq(wanted).logical_and(best.isfinite()).logical_or(wanted.lt(0));
  return {.nats = answer(losses.nats).to(at::kDouble).sum().item<double>(),
          .targets = wanted.ge(0).sum().item<int64_t>(),
          .exact = right.all(1).sum().item<int64_t>()};
}

}  // namespace deq
