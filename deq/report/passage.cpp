#include "deq/report/passage.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "deq/train/evaluate.h"

namespace deq {

std::string symbol_at(const Vocabulary& vocabulary, const at::Tensor& tokens, int64_t place) {
  return tokens.dim() == 1 ? vocabulary.token(tokens[place].item<int64_t>())
                           : std::to_string(place + 1);
}

Passage solve_passage(const TrainedModel& run, const Split& split, int64_t count) {
  check_equilibrium(run);
  c10::AutoGradMode no_tape(false);
  run.model->eval();
  ForwardOptions how;
  how.equilibrium = for_evaluation(run.options.equilibrium);
  how.subsequence = run.options.eval.subsequence;
  const KnownSegments known =
      first_segments(*run.model, split, count, run.options.eval.length, how);
  const at::Tensor& tokens = known.tokens;
  const Report report = run.model->forward(tokens, known.histories, how).report;
  DEQ_CHECK(report.trace.defined(),
            "cell = {}: it meets a condition of its own, and its solves leave no residual by step",
            run.options.model.cell.name());
  const int64_t B = tokens.size(0), T = tokens.size(1), S = report.trace.size(0);
  const bool whole = scope_of(how.equilibrium.solver) == Scope::Whole;
  const int64_t samples = whole ? 1 : B;
  // Of a sample: T, or its parts in scopes `sample` and `whole`.
  const int64_t rows = report.steps.numel() / samples;
  const int64_t part = rows == T ? 1 : rows > 1 ? how.subsequence : T;  // positions of a row
  Passage passage{.spaced = is_spaced(run.vocabulary.unit()) || tokens.dim() == 3,
                  .history = known.histories.empty() ? 0 : T,
                  .part = how.subsequence,
                  .max_steps = report.max_steps,
                  .rel_tol = report.rel_tol};
  const at::Tensor medians = std::get<0>(at::nanmedian(report.trace.view({S, samples, rows}), 2));
  for (int64_t b = 0; b < B; ++b) {
    auto& sample = passage.samples.emplace_back();
    for (int64_t t = 0; t < T; ++t) {
      const int64_t row = (whole ? 0 : b * rows) + t / part;
      sample.push_back({symbol_at(run.vocabulary, tokens[b], t), report.steps[row].item<int64_t>(),
                        report.reason[row].item<uint8_t>() == uint8_t(Reason::Converged)});
    }
    auto& trace = passage.traces.emplace_back();
    for (int64_t s = 0; s < S; ++s) trace.push_back(medians[s][whole ? 0 : b].item<double>());
  }
  return passage;
}

}  // namespace deq
