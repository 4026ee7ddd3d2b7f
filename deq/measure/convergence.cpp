#include "deq/measure/convergence.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "deq/train/evaluate.h"

namespace deq {
namespace {

using at::Tensor;

std::vector<NamedSolver> methods(bool causal) {
  std::vector<NamedSolver> all = {
      {"weight-tied iteration, by sample", Picard{.scope = Scope::Sample}},
      {"Anderson, by sample", Anderson{.scope = Scope::Sample}},
      {"Broyden, by sample", Broyden{.scope = Scope::Sample}}};
  if (!causal) return all;
  all.push_back({"weight-tied iteration, by position", Picard{.scope = Scope::Position}});
  all.push_back({"Anderson, causal", Anderson{.scope = Scope::Causal}});
  all.push_back({"Broyden, by position", Broyden{.scope = Scope::Position}});
  return all;
}

/// The first step at which the residuals (S) are at most `tolerance`; "–": never.
std::string reached(const Tensor& residuals, double tolerance) {
  const Tensor there = residuals.le(tolerance).nonzero();
  return there.numel() == 0 ? "–" : fmt::format("{}", there[0].item<int64_t>() + 1);
}

}  // namespace

Measurement measure_convergence(const TrainedModel& run, const std::string& name,
                                const Split& split, const ConvergenceOptions& options) {
  check_iterates(run);
  Model& model = *run.model;
  c10::NoGradGuard no_tape;
  model.eval();
  const KnownSegments known =
      first_segments(model, split, options.segments, run.options.eval.length,
                     {.equilibrium = for_evaluation(run.options.equilibrium)});
  const Tensor& tokens = known.tokens;
  const Map f = model.bind(tokens, known.histories).front().f;
  const Tensor z0 = at::zeros(model.state_shape(tokens),
                              model.parameters().front().options().requires_grad(false));
  Measurement found;
  found.columns = {"run",  "method", "median at 1e-1",          "1e-2", "1e-3", "slowest at 1e-1",
                   "1e-2", "1e-3",   "smallest median residual"};
  Chart chart{{"Residual, " + name, "evaluations", "relative, median over rows", true}, {}};
  for (const NamedSolver& method : methods(model.cell().causal())) {
    const StopRule stop{.max_steps = options.steps, .rel_tol = 1e-7};
    const Report report = solve(f, z0, method.solver, stop).report;
    const Tensor trace = report.trace.nan_to_num(INFINITY);  // (S, R)
    const Tensor median = std::get<0>(trace.median(1)), slowest = std::get<0>(trace.max(1));
    std::vector<std::string> row = {name, method.name};
    for (const Tensor& of : {median, slowest}) {
      for (const double tolerance : {1e-1, 1e-2, 1e-3}) row.push_back(reached(of, tolerance));
    }
    row.push_back(fmt::format("{:.1e}", median.min().item<double>()));
    found.rows.push_back(std::move(row));
    Series& line = chart.series.emplace_back(Series{method.name, {}});
    for (int64_t s = 0; s < median.size(0); ++s)
      line.points.emplace_back(double(s + 1), median[s].item<double>());
  }
  found.charts = {chart};
  return found;
}

}  // namespace deq
