#include "deq/decode/generator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace deq {

TextGenerator::TextGenerator(LanguageModel& model, const EquilibriumOptions& equilibrium,
                             int64_t history)
    : model_(model) {
  DEQ_CHECK(model.cell().causal(),
            "generate: the cell is not causal; expected a model trained with cell-causal");
  DEQ_CHECK(history >= 0, "generate: history = {}; expected >= 0", history);
  how_.equilibrium = equilibrium;
  how_.history = history;
  model.eval();
}

Report TextGenerator::solve(const std::vector<int64_t>& tokens) {
  c10::NoGradGuard no_tape;
  for (const int64_t token : tokens) {
    DEQ_CHECK(token >= 0 && token < model_.vocabulary(), "generate: token {}; expected 0 to {}",
              token, model_.vocabulary() - 1);
  }
  const at::Device device = model_.parameters().front().device();
  const at::Tensor row = at::tensor(tokens, at::kLong).unsqueeze(0).to(device);  // (1, T)
  ModelOutput output = model_.forward(row, histories_, how_);
  histories_ = std::move(output.histories);
  const at::Tensor last = output.z.narrow(1, row.size(1) - 1, 1);
  log_probabilities_ = model_.log_probabilities(last).view({-1});
  const double worst = output.report.worst_residual();
  if (std::isnan(worst) || worst > report_.worst_residual) report_.worst_residual = worst;
  return std::move(output.report);
}

void TextGenerator::feed(const std::vector<int64_t>& tokens) {
  DEQ_CHECK(!tokens.empty(), "generate: the prompt is empty; expected at least one token");
  const Report report = solve(tokens);
  report_.prompt_tokens += int64_t(tokens.size());
  report_.prompt_evaluations += report.evaluations;
  report_.prompt_converged_share =
      std::min(report_.prompt_converged_share, report.converged_share());
}

int64_t TextGenerator::next(const SamplingOptions& options, at::Generator& generator) {
  DEQ_CHECK(log_probabilities_.defined(),
            "generate: nothing was fed; expected a prompt of at least one token");
  const int64_t token = sample(log_probabilities_, options, generator);
  const Report report = solve({token});
  ++report_.tokens;
  report_.evaluations += report.evaluations;
  report_.converged += report.converged();
  return token;
}

}  // namespace deq
