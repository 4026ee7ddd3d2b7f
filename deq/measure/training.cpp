#include "deq/measure/training.h"

#include <fmt/format.h>

#include <cmath>

namespace deq {
namespace {

using Lines = std::vector<const MetricsLine*>;

Lines solved_steps(const RunRecord& run) {
  Lines steps;
  for (const MetricsLine& line : run.lines) {
    if (line.kind == "train") steps.push_back(&line);
  }
  DEQ_CHECK(!steps.empty(), "run '{}' has no step after its shallow pre-training", run.name);
  return steps;
}

/// Of the lines that have the number, as text; "–": none has.
std::string mean(const Lines& lines, const std::string& field, const char* format) {
  double sum = 0;
  int64_t count = 0;
  for (const MetricsLine* line : lines) {
    if (const double value = line->at(field); std::isfinite(value)) sum += value, ++count;
  }
  return count == 0 ? "–" : fmt::format(fmt::runtime(format), sum / double(count));
}

Series series_of(const RunRecord& run, const Lines& steps, const std::string& field) {
  Series series{run.name, {}};
  for (const MetricsLine* line : steps)
    series.points.emplace_back(double(line->step), line->at(field));
  return series;
}

}  // namespace

Measurement measure_training(const std::vector<RunRecord>& runs, const TrainingOptions& options) {
  Measurement found;
  found.columns = {"run",      "steps",     "loss",     "evaluations, forward",
                   "residual", "converged", "backward", "‖J‖² / n"};
  Chart loss{{"Training loss", "steps", "nats"}, {}};
  Chart evaluations{{"Evaluations", "steps", "of a forward solve"}, {}};
  Chart residual{{"Residual", "steps", "of a forward solve, mean over positions", true}, {}};
  for (const RunRecord& run : runs) {
    const Lines steps = solved_steps(run);
    const size_t parts = std::min(size_t(options.parts), steps.size());
    for (size_t part = 0; part < parts; ++part) {
      const Lines lines(steps.begin() + int64_t(part * steps.size() / parts),
                        steps.begin() + int64_t((part + 1) * steps.size() / parts));
      found.rows.push_back(
          {run.name, fmt::format("{} to {}", lines.front()->step, lines.back()->step),
           mean(lines, "loss", "{:.3f}"), mean(lines, "evaluations", "{:.1f}"),
           mean(lines, "residual", "{:.1e}"), mean(lines, "converged_share", "{:.3f}"),
           mean(lines, "adjoint_evaluations", "{:.1f}"), mean(lines, "jacobian", "{:.3g}")});
    }
    loss.series.push_back(series_of(run, steps, "loss"));
    evaluations.series.push_back(series_of(run, steps, "evaluations"));
    residual.series.push_back(series_of(run, steps, "residual"));
  }
  found.charts = {evaluations, residual, loss};
  return found;
}

}  // namespace deq
