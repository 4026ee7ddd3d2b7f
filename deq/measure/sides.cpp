#include "deq/measure/sides.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "deq/data/sequences.h"
#include "deq/decode/whole.h"
#include "deq/models/language_model.h"
#include "deq/tasks/masked.h"

namespace deq {
namespace {

using at::Tensor;

const Masked& masked_of(const TrainedModel& run) {
  const auto* task = run.options.task.get_if<Masked>();
  DEQ_CHECK(task, "run '{}' is of task {}; expected one of task masked", run.folder,
            task_name(run.options.task));
  return *task;
}

/// That the other run's tokens are the characters that the masked one answers.
void check_pair(const TrainedModel& masked, const TrainedModel& causal) {
  masked_of(masked);
  DEQ_CHECK(continues_text(causal.options.task),
            "run '{}' is of task {}, which continues no text; expected one of task characters",
            causal.folder, task_name(causal.options.task));
  bool same = masked.answers.size() == causal.vocabulary.size();
  for (int64_t id = 0; same && id < masked.answers.size(); ++id)
    same = masked.answers.token(id) == causal.vocabulary.token(id);
  DEQ_CHECK(same, "runs '{}' and '{}' have {} and {} characters, not the same; expected one text",
            masked.folder, causal.folder, masked.answers.size(), causal.vocabulary.size());
}

/// Sums over some characters.
struct Sums {
  int64_t characters = 0, rows = 0, converged = 0;
  double both = 0, left = 0;  // nats
};

EquilibriumOptions solved_by(const TrainedModel& run, int64_t max_steps) {
  EquilibriumOptions found = for_evaluation(run.options.equilibrium);
  if (max_steps > 0) found.stop.max_steps = max_steps;
  return found;
}

void add(Sums& sums, const TrainedModel& masked, const TrainedModel& causal, const Batch& batch,
         int64_t max_steps) {
  const Tensor scored = batch.targets.ge(0).slice(1, 1);  // (B, T - 1)
  const auto nats = [&](const TrainedModel& run, const Tensor& tokens, const Tensor& targets) {
    const LayerOutput found =
        run.model->forward(tokens, {}, {.equilibrium = solved_by(run, max_steps)});
    sums.rows += found.report.reason.defined() ? found.report.reason.numel() : 0;
    sums.converged += found.report.reason.defined() ? found.report.count(Reason::Converged) : 0;
    return run.model->loss(found.z, targets).to(at::kCPU, at::kDouble);
  };
  const Tensor text = at::where(batch.targets.ge(0), batch.targets, batch.tokens);
  sums.both += nats(masked, batch.tokens, batch.targets).slice(1, 1).sum().item<double>();
  const Tensor known = text.slice(1, 0, text.size(1) - 1);
  sums.left += nats(causal, known, text.slice(1, 1)).masked_select(scored).sum().item<double>();
  sums.characters += scored.sum().item<int64_t>();
}

/// One way to tell a text's characters one by one.
std::vector<std::string> told(const std::string& name, int64_t count, double seconds, double nats,
                              double evaluations, double positions, int64_t converged) {
  const auto n = double(count);
  return {name,
          fmt::format("{:.3f}", nats / n / std::numbers::ln2),
          fmt::format("{:.1f}", evaluations / n),
          fmt::format("{:.0f}", positions / n),
          fmt::format("{:.2f}", 1e3 * seconds / n),
          fmt::format("{:.1f}%", 100 * double(converged) / n)};
}

}  // namespace

Measurement measure_sides(const TrainedModel& masked, const TrainedModel& causal,
                          const Corpus& texts, const SidesOptions& options) {
  check_pair(masked, causal);
  const c10::NoGradGuard no_tape;
  masked.model->eval();
  causal.model->eval();
  Measurement found;
  found.columns = {"holes",           "characters", "bits, both sides",
                   "bits, left side", "fewer",      "converged"};
  for (const NamedSplit& set : texts.more) {
    SequenceEvaluationStream stream(set.make(), options.batch);
    Sums sums;
    while (const auto batch = stream.next()) add(sums, masked, causal, *batch, options.max_steps);
    DEQ_CHECK(sums.characters > 0, "test set '{}' has no hole behind a first place; expected one",
              set.name);
    const double scale = double(sums.characters) * std::numbers::ln2;
    found.rows.push_back(
        {set.name, fmt::format("{}", sums.characters), fmt::format("{:.3f}", sums.both / scale),
         fmt::format("{:.3f}", sums.left / scale),
         fmt::format("{:.1f}%", 100 * (1 - sums.both / sums.left)),
         fmt::format("{:.1f}%", 100 * double(sums.converged) / std::max(1.0, double(sums.rows)))});
  }
  return found;
}

Measurement measure_anew(const TrainedModel& masked, const TrainedModel& causal, const Split& text,
                         const AnewOptions& options) {
  check_pair(masked, causal);
  const int64_t n = options.tokens, length = masked_of(masked).length;
  DEQ_CHECK(n < text.tokens.size(0), "tokens = {}; expected less than the split's {}", n,
            text.tokens.size(0));
  const c10::NoGradGuard no_tape;
  masked.model->eval();
  causal.model->eval();
  const Tensor tokens = text.tokens.to(at::kLong).contiguous();
  const auto* ids = tokens.data_ptr<int64_t>();
  Measurement found;
  found.columns = {"told",           "bits per character", "evaluations a character",
                   "positions each", "ms a character",     "converged"};
  ForwardOptions how{.equilibrium = solved_by(causal, options.max_steps), .history = length - 2};
  Histories kept;
  double nats = 0;
  int64_t evaluations = 0, converged = 0;
  double seconds = seconds_of([&] {
    for (int64_t t = 0; t < n; ++t) {
      LayerOutput now = causal.model->forward(tokens.narrow(0, t, 1).unsqueeze(0), kept, how);
      kept = std::move(now.histories);
      evaluations += now.report.evaluations;
      converged += now.report.converged() ? 1 : 0;
      nats -= causal.model->log_probabilities(now.z)[0][0][ids[t + 1]].item<double>();
    }
  });
  found.rows.push_back(
      told("causal, equilibria kept", n, seconds, nats, double(evaluations), double(n), converged));
  for (const bool warm : {true, false}) {
    WholeText whole(*masked.model, solved_by(masked, options.max_steps),
                    {.hole = hole_of(masked.vocabulary), .length = length, .warm = warm});
    nats = 0;
    seconds = seconds_of([&] {
      for (int64_t t = 0; t < n; ++t) {
        whole.feed({masked.vocabulary.find(masked.answers.token(ids[t])).value()});
        nats -= whole.next()[ids[t + 1]].item<double>();
      }
    });
    const WholeReport& report = whole.report();
    found.rows.push_back(told(warm ? "all again, from where it stood" : "all again, from the start",
                              n, seconds, nats, double(report.evaluations),
                              double(report.positions), report.converged));
  }
  return found;
}

}  // namespace deq
