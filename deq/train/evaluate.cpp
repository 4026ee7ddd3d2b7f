#include "deq/train/evaluate.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>

#include "deq/data/stream.h"

namespace deq {
namespace {

/// Evaluation mode for a scope, then the mode that was.
class EvaluationMode {
 public:
  explicit EvaluationMode(LanguageModel& model) : model_(model), training_(model.is_training()) {
    model.eval();
  }
  ~EvaluationMode() { model_.train(training_); }

 private:
  LanguageModel& model_;
  bool training_;
};

ForwardOptions forward_options(const EquilibriumOptions& equilibrium, int64_t history) {
  ForwardOptions options;
  options.equilibrium = equilibrium;
  options.history = history;
  return options;
}

}  // namespace

Evaluation evaluate(LanguageModel& model, const at::Tensor& text,
                    const EquilibriumOptions& equilibrium, const EvaluationOptions& options,
                    const std::function<void(double)>& progress) {
  validate(options, "Evaluation");
  c10::NoGradGuard no_tape;
  const EvaluationMode mode(model);
  const auto start = std::chrono::steady_clock::now();
  const at::Device device = model.parameters().front().device();
  EvaluationStream stream(text, options.lanes, options.batch, options.length);
  const ForwardOptions how = forward_options(equilibrium, options.history);
  Evaluation result;
  Histories histories;
  double loss = 0, residual = 0, converged = 0, rows = 0, solves = 0;
  while (const auto segment = stream.next()) {
    if (segment->reset) histories.clear();
    const ModelOutput output = model.forward(segment->tokens.to(device), histories, how);
    loss += model.loss(output.z, segment->targets.to(device)).to(at::kDouble).sum().item<double>();
    histories = output.histories;
    result.tokens += segment->targets.numel();
    const double positions = double(segment->targets.numel());
    residual += output.report.mean_residual() * positions;
    converged += output.report.converged_share() * positions;
    rows += positions;
    const double worst = output.report.worst_residual();
    if (!(worst <= result.worst_residual)) result.worst_residual = worst;
    result.evaluations += double(output.report.evaluations);
    ++solves;
    if (progress) progress(double(result.tokens) / double(stream.targets()));
  }
  result.loss = loss / double(result.tokens);
  result.mean_residual = residual / rows;
  result.converged_share = converged / rows;
  result.evaluations /= solves;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

double measure_leak(LanguageModel& model, const at::Tensor& text,
                    const EquilibriumOptions& equilibrium, const EvaluationOptions& options) {
  c10::NoGradGuard no_tape;
  const EvaluationMode mode(model);
  const int64_t T = options.length;
  DEQ_CHECK(T >= 2, "check-leak: eval-length = {}; expected >= 2", T);
  DEQ_CHECK(text.size(0) > T, "check-leak: text of {} tokens; expected more than eval-length = {}",
            text.size(0), T);
  const int64_t segments = std::min(options.lanes, text.size(0) / T);
  const at::Device device = model.parameters().front().device();
  const ForwardOptions how = forward_options(equilibrium, 0);
  double leak = 0;
  for (int64_t s = 0; s < segments; ++s) {
    const at::Tensor tokens = text.narrow(0, s * T, T).unsqueeze(0).to(device);
    at::Tensor changed = tokens.clone();
    changed.select(1, T - 1).add_(1).remainder_(model.vocabulary());
    const at::Tensor a = model.forward(tokens, {}, how).z.narrow(1, 0, T - 1);
    const at::Tensor b = model.forward(changed, {}, how).z.narrow(1, 0, T - 1);
    leak = std::max(leak, ((a - b).norm(2, {2}) / a.norm(2, {2})).max().item<double>());
  }
  return leak;
}

}  // namespace deq
