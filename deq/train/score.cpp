#include "deq/train/score.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

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

namespace {

/// The places of the batch's answers, of (B, T, ...) or (B, H, W, ...).
Tensor answer_places(const Tensor& all, const Batch& batch) {
  const int64_t positions = all.size(1);
  const int64_t held = batch.answer == kEveryPosition ? positions : batch.answer;
  return all.narrow(1, positions - held, held);
}

}  // namespace

Answers answers_of(const Model& model, const Tensor& z, const Batch& batch) {
  const Tensor wanted = answer_places(batch.targets, batch).to(z.device());
  const bool pools = model.options().ends.pool;  // all states are needed for each answer
  const auto [best, likeliest] = (pools ? answer_places(model.log_probabilities(z), batch)
                                        : model.log_probabilities(answer_places(z, batch)))
                                     .max(-1);
  const Tensor right = likeliest.eq(wanted).logical_and(best.isfinite()).logical_or(wanted.lt(0));
  return {likeliest, right};
}

Tensor right_problems(const Model& model, const Tensor& z, const Batch& batch) {
  c10::AutoGradMode no_tape(false);
  const Tensor scored = batch.targets.ge(0).flatten(1).any(1).to(z.device());
  return answers_of(model, z.detach(), batch).right.flatten(1).all(1).logical_and(scored);
}

double nats_of_answers(const Tensor& nats, const Batch& batch) {
  return answer_places(nats, batch).to(at::kDouble).sum().item<double>();
}

AnswerScore score_answer(const Model& model, const Tensor& z, const Losses& losses,
                         const Batch& batch) {
  const Tensor right = answers_of(model, z, batch).right;
  const Tensor scored = answer_places(batch.targets, batch).to(z.device()).ge(0);
  return {.nats = nats_of_answers(losses.nats, batch),
          .targets = scored.sum().item<int64_t>(),
          .right = right.logical_and(scored).sum().item<int64_t>(),
          .exact = right.flatten(1).all(1).sum().item<int64_t>()};
}

}  // namespace deq
