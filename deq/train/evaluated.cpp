#include "deq/train/evaluated.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/train/halted.h"

namespace deq {

using at::Tensor;

Evaluated evaluate_part(Model& model, const Batch& part, Histories& histories,
                        const ForwardOptions& how, const Scoring* scoring) {
  Evaluated found;
  if (part.tokens.size(0) == 0) return found;
  if (part.reset) histories.clear();
  const bool halts = model.halting()->halts();
  LayerOutput output;
  if (halts) {
    Halted ended = run_halting(model, part.tokens, model.halting(), how, part.first_lane);
    found.steps = ended.report.steps.sum().item<int64_t>();
    found.halted = ended.halted.sum().item<int64_t>();
    output.z = std::move(ended.z);
    output.report = std::move(ended.report);
  } else {
    output = model.forward(part.tokens, histories, how);
  }
  const Losses losses = losses_of(model, output.z, part.targets);
  if (part.answer != 0) found.answers = score_answer(model, output.z, losses, part);
  if (scoring)
    found.scores = scoring->of_problems({model.values(output.z), model.percents()}, part);
  histories = std::move(output.histories);
  found.nats = losses.nats;
  found.count = losses.count;
  found.report = std::move(output.report);
  return found;
}

namespace {

/// What of a part is one number.
constexpr int64_t kCount = 0, kEvaluations = 1, kTargets = 2, kRight = 3, kExact = 4, kSteps = 5,
                  kHalted = 6, kNumbers = 7;

Tensor numbers_of(const Evaluated& part) {
  return at::tensor({part.count, part.report.evaluations, part.answers.targets, part.answers.right,
                     part.answers.exact, part.steps, part.halted},
                    at::kLong);
}

/// (B, R) double: of each of its samples the losses, and behind them residuals and reasons of its
/// rows.
Tensor rows_of(const Evaluated& part) {
  if (!part.nats.defined()) return {};
  const int64_t B = part.nats.size(0);
  std::vector<Tensor> columns{part.nats.to(at::kCPU, at::kDouble).reshape({B, -1})};
  if (part.report.reason.defined()) {
    columns.push_back(part.report.residual.reshape({B, -1}));
    columns.push_back(part.report.reason.to(at::kDouble).reshape({B, -1}));
  }
  return at::cat(columns, 1);
}

}  // namespace

Evaluated join(const Shards& shards, const std::vector<Evaluated>& own, const Batch& segment,
               bool scored) {
  if (!shards.several()) return own.front();
  const int64_t B = segment.tokens.size(0), places = segment.tokens.numel() / B;
  std::vector<Tensor> rows, numbers;
  for (const Evaluated& part : own) {
    rows.push_back(rows_of(part));
    numbers.push_back(numbers_of(part));
  }
  const Tensor all_numbers =
      shards.group().gather(at::stack(numbers)).reshape({shards.count(), kNumbers});
  const Tensor all = shards.join(rows, B);  // (B, places + 2 R / B)
  Evaluated whole;
  whole.nats = all.narrow(1, 0, places).reshape(segment.targets.sizes());
  const int64_t judged = (all.size(1) - places) / 2;  // rows of the solve in a sample
  if (judged > 0) {
    whole.report.residual = all.narrow(1, places, judged).flatten();
    whole.report.reason = all.narrow(1, places + judged, judged).flatten().to(at::kByte);
  }
  const Tensor sums = all_numbers.sum(0);
  whole.count = sums[kCount].item<int64_t>();
  whole.steps = sums[kSteps].item<int64_t>();
  whole.halted = sums[kHalted].item<int64_t>();
  whole.report.evaluations = all_numbers.select(1, kEvaluations).max().item<int64_t>();
  whole.answers = {.targets = sums[kTargets].item<int64_t>(),
                   .right = sums[kRight].item<int64_t>(),
                   .exact = sums[kExact].item<int64_t>()};
  std::vector<Tensor> scores;
  for (const Evaluated& part : own) scores.push_back(part.scores);
  if (scored) whole.scores = shards.join(scores, B);
  if (segment.answer != 0) whole.answers.nats = nats_of_answers(whole.nats, segment);
  return whole;
}

}  // namespace deq
