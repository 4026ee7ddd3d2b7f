#include "deq/measure/cost.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "deq/base/memory_meter.h"
#include "deq/decode/generator.h"
#include "deq/layers/condition.h"
#include "deq/models/language_model.h"
#include "deq/train/evaluate.h"
#include "deq/train/trainer.h"

namespace deq {
namespace {

struct Training {
  double seconds_per_token = 0, peak_bytes = 0;
};

int64_t bytes_of(const NamedTensors& tensors, const std::string& prefix) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    if (name.rfind(prefix, 0) == 0) bytes += int64_t(tensor.nbytes());
  }
  return bytes;
}

Training train(const TrainedModel& run, const Corpus& corpus, int64_t steps) {
  TrainOptions options = run.options;
  options.loop.run.device = "cpu";
  options.loop.stability.pretrain_steps = 0;
  // A run does not keep a solver that it has no use for: as `deq train` chooses it.
  if (has_condition(options.model.cell)) settle(options.equilibrium, options.model, {});
  std::optional<Trainer> trainer;
  const int64_t peak = peak_tensor_bytes([&] {
    trainer.emplace(options, corpus);
    load_weights(trainer->model(), named_tensors(*run.model), "the run");
    // The first steps have no whole history yet.
    const BatchOptions& batch = options.loop.batch;
    const int64_t without = (batch.history + batch.length - 1) / batch.length;
    for (int64_t i = 0; i < std::max<int64_t>(2, without + 1); ++i) trainer->step();
  });
  const NamedTensors state = trainer->state();
  Training found;
  found.peak_bytes = double(peak - bytes_of(state, "model.") - bytes_of(state, "optimizer."));
  const double seconds = seconds_of([&] {
    for (int64_t i = 0; i < steps; ++i) trainer->step();
  });
  found.seconds_per_token = seconds / double(steps * trainer->tokens_per_step());
  return found;
}

/// Of one token, its probabilities included.
double decoding_seconds(const TrainedModel& run, const EquilibriumOptions& equilibrium,
                        const at::Tensor& text, int64_t count) {
  const int64_t history = run.options.eval.length + run.options.eval.history;
  DEQ_CHECK(text.size(0) >= history + count + 1,
            "test split of {} tokens; expected at least {}, to decode {} behind {}", text.size(0),
            history + count + 1, count, history);
  c10::NoGradGuard no_tape;
  TextGenerator generator(language_model(*run.model), equilibrium, history);
  const int64_t* ids = text.data_ptr<int64_t>();
  generator.feed({ids, ids + history});
  generator.feed({ids[history]});  // warms up
  return seconds_of([&] {
           for (int64_t i = 1; i <= count; ++i) generator.feed({ids[history + i]});
         }) /
         double(count);
}

}  // namespace

Measurement measure_cost(const TrainedModel& run, const std::string& name, const Corpus& corpus,
                         const CostOptions& options, const std::function<void(double)>& progress) {
  EquilibriumOptions solved = run.options.equilibrium;
  solved.stop.max_steps = options.max_steps;
  const Evaluation e = evaluate(*run.model, beginning(corpus.test, options.tokens), solved,
                                run.options.eval, progress);
  const Training training = train(run, corpus, options.train);
  const bool decodes = options.decode > 0 && continues_text(run.options.task);
  const double decoding =
      decodes ? decoding_seconds(run, solved, corpus.test.tokens.contiguous(), options.decode) : 0;
  const bool is_explicit = run.model->is_explicit();
  Measurement found;
  found.columns = {"run",
                   "parameters",
                   fmt::format("test {}", metric_name(run.options.task)),
                   "mean residual",
                   "converged",
                   "memory of a step, MB",
                   "training, s per 1,000 tokens",
                   "evaluation",
                   "decoding"};
  found.rows.push_back({name,
                        fmt::format("{:.2f}M", double(run.model->parameter_count(true)) / 1e6),
                        fmt::format("{:.5g}", metric_value(run.options.task, e.loss)),
                        is_explicit ? "–" : fmt::format("{:.1e}", e.mean_residual),
                        is_explicit ? "–" : fmt::format("{:.1f}%", 100 * e.converged_share),
                        fmt::format("{:.1f}", training.peak_bytes / 1e6),
                        fmt::format("{:.3g}", 1e3 * training.seconds_per_token),
                        fmt::format("{:.3g}", 1e3 * e.seconds / double(e.tokens)),
                        decodes ? fmt::format("{:.3g}", 1e3 * decoding) : "–"});
  return found;
}

}  // namespace deq
