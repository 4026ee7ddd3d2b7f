#include "deq/train/score.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

Losses losses_of(const Model& model, const Tensor& z, const Tensor& targets) {
  return {model.loss(z, targets), targets.ge(0).sum().item<int64_t>()};
}

void AnswerScore::add(const AnswerScore& other) {
  nats += other.nats;
  targets += other.targets;
  right += other.right;
  exact += other.exact;
}

AnswerScore score_answer(const Model& model, const Tensor& z, const Losses& losses,
                         const Batch& batch) {
  const int64_t positions = z.size(1);
  const int64_t held = batch.answer == kEveryPosition ? positions : batch.answer;
  const auto answer = [&](const Tensor& all) { return all.narrow(1, positions - held, held); };
  const Tensor wanted = answer(batch.targets).to(z.device());  // (B, answer)
  const auto [best, likeliest] = model.log_probabilities(answer(z)).max(-1);
  const Tensor right = likeliest.eq(wanted).logical_and(best.isfinite()).logical_or(wanted.lt(0));
  return {.nats = answer(losses.nats).to(at::kDouble).sum().item<double>(),
          .targets = wanted.ge(0).sum().item<int64_t>(),
          .right = right.logical_and(wanted.ge(0)).sum().item<int64_t>(),
          .exact = right.flatten(1).all(1).sum().item<int64_t>()};
}

}  // namespace deq
