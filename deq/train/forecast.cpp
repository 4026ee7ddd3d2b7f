#include "deq/train/forecast.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/base/levels.h"
#include "deq/base/threads.h"

namespace deq {

using at::Tensor;

namespace {

/// One solve's rows.
struct Solved {
  Tensor values;  // (H, C, n) sorted
  double residual = 0;
  bool usable = true;  // values are such that later rows can be solved for from them
  bool converged = true;
  int64_t evaluations = 0;
};

/// (1, T + rows, C)
Tensor asked_behind(const Context& context, int64_t rows) {
  const Tensor asked = at::full({rows, context.ids.size(1)}, kAsked, at::kLong);
  return at::cat({context.ids, asked}).unsqueeze(0);
}

/// The baseline of so many rows, (rows, C): of what is known, not of what is forecast.
Tensor baseline(const TimeSeries& task, const Tensor& known, int64_t rows) {
  const Context context = context_of(known, task.centre);
  const Tensor found = season_ago(asked_behind(context, rows), task.season)[0];
  return found.narrow(0, task.context, rows) + context.centre;
}

Solved solve(Model& model, const TimeSeries& task, const Tensor& known, const ForwardOptions& how) {
  const Context context = context_of(known, task.centre);
  const Tensor tokens = asked_behind(context, task.horizon);
  const LayerOutput output = model.forward(tokens, {}, how);
  const Tensor answered = model.values(output.z).to(at::kCPU, at::kDouble)[0];
  Solved found;
  found.values = std::get<0>(answered.narrow(0, task.context, task.horizon).sort(-1)) +
                 context.centre.unsqueeze(1);
  found.evaluations = output.report.evaluations;
  found.usable = found.values.isfinite().all().item<bool>() &&
                 found.values.abs().max().item<double>() <= kLargestValue / 2;
  found.converged = found.usable;
  if (model.is_explicit()) return found;
  const double worst = output.report.worst_residual();
  found.residual = std::isfinite(worst) ? worst : std::numeric_limits<double>::infinity();
  found.converged = output.report.converged() && found.usable;
  return found;
}

/// Their place among the quantiles; 0 of a single number.
int64_t median_of(const std::vector<int64_t>& percents) {
  const auto found = std::find(percents.begin(), percents.end(), 50);
  return found == percents.end() ? 0 : found - percents.begin();
}

}  // namespace

bool Forecast::all_converged() const {
  return std::find(converged.begin(), converged.end(), false) == converged.end();
}

Forecast forecast(Model& model, const TimeSeries& task, const Tensor& values, int64_t rows,
                  const ForecastOptions& options) {
  validate(options, "Forecast");
  DEQ_CHECK(rows >= 1, "horizon = {}; expected at least 1", rows);
  DEQ_CHECK(values.size(0) >= task.context, "{} rows; expected task-context = {} of the run",
            values.size(0), task.context);
  DEQ_CHECK(!model.is_training(), "forecast: the model is in training mode; expected evaluation's");
  c10::NoGradGuard no_tape;
  ForwardOptions how;
  how.equilibrium = for_evaluation(options.equilibrium);
  how.subsequence = options.subsequence;
  Forecast found{.percents = model.percents()};
  const int64_t median = median_of(found.percents);
  Tensor known = values.narrow(0, values.size(0) - task.context, task.context);
  found.season = baseline(task, known, rows);
  std::vector<Tensor> parts;
  const FreeThreads threads;
  for (int64_t done = 0; done < rows; done += task.horizon) {
    look_for_free_threads();
    const Solved solved = solve(model, task, known, how);
    const int64_t own = std::min(task.horizon, rows - done);
    parts.push_back(solved.values.narrow(0, 0, own));
    // What a row is rolled on from counts for it too.
    const bool good = solved.converged && found.all_converged();
    found.converged.insert(found.converged.end(), size_t(own), good);
    if (!model.is_explicit())
      found.residuals.insert(found.residuals.end(), size_t(own), solved.residual);
    found.evaluations += solved.evaluations;
    ++found.solves;
    if (!solved.usable) break;
    known = at::cat({known, solved.values.select(2, median)}).narrow(0, task.horizon, task.context);
  }
  const int64_t missing = rows - int64_t(found.converged.size());
  if (missing > 0) {
    parts.push_back(at::full_like(parts.back(), NAN).narrow(0, 0, 1).repeat({missing, 1, 1}));
    found.converged.resize(size_t(rows), false);
    if (!model.is_explicit())
      found.residuals.resize(size_t(rows), std::numeric_limits<double>::infinity());
  }
  found.values = at::cat(parts);
  return found;
}

}  // namespace deq
