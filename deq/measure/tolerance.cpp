#include "deq/measure/tolerance.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "deq/gradients/implicit.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/train/evaluate.h"

namespace deq {
namespace {

std::vector<NamedSolver> methods(const TrainedModel& run) {
  const Solver own = run.options.equilibrium.solver;
  std::vector<NamedSolver> all = {{"the run's own", own}};
  const Scope scope = scope_of(own);
  if (scope == Scope::Sample) return all;
  all.push_back({"Anderson over whole samples", Anderson{.scope = Scope::Sample}});
  all.push_back({"Broyden over whole samples", Broyden{.scope = Scope::Sample}});
  return all;
}

std::string leak_text(double moved) {
  if (std::isnan(moved)) return "–";  // of states that are zero
  return moved == 0 ? "0" : fmt::format("{:.0e}", moved);
}

std::vector<double> tolerances_of(const ToleranceOptions& options) {
  std::vector<double> all;
  const double step = std::log(options.tightest / options.loosest) / double(options.points - 1);
  for (int64_t i = 0; i < options.points; ++i)
    all.push_back(options.loosest * std::exp(step * double(i)));
  return all;
}

}  // namespace

Measurement measure_tolerance(const TrainedModel& run, const Split& split,
                              const ToleranceOptions& options,
                              const std::function<void(double)>& progress) {
  check_iterates(run);
  DEQ_CHECK(options.tightest < options.loosest,
            "tightest = {:g}; expected less than loosest = {:g}", options.tightest,
            options.loosest);
  const Split part = beginning(split, options.tokens);
  const std::string metric = metric_name(run.options.task);
  Measurement found;
  found.columns = {"solver",    "tolerance",   metric, "mean residual",
                   "converged", "evaluations", "leak"};
  Chart values{{"Test, by tolerance", "relative tolerance", metric, true, true}, {}};
  Chart leaks{{"Leak", "relative tolerance",
               "movement of earlier positions when the last token changes", true, true},
              {}};
  const auto all = methods(run);
  const auto tolerances = tolerances_of(options);
  double done = 0;
  const double whole = double(all.size() * tolerances.size());
  for (const NamedSolver& method : all) {
    Series value{method.name, {}}, leak{method.name, {}};
    for (const double tolerance : tolerances) {
      EquilibriumOptions how{.solver = method.solver};
      how.stop = {.max_steps = options.steps, .rel_tol = tolerance};
      const Evaluation e = evaluate(*run.model, part, how, run.options.eval, [&](double share) {
        if (progress) progress((done + share) / whole);
      });
      const double moved = measure_leak(*run.model, part, how, run.options.eval);
      ++done;
      const double shown = metric_value(run.options.task, e.loss);
      value.points.emplace_back(tolerance, shown);
      leak.points.emplace_back(tolerance, moved);
      found.rows.push_back({method.name, fmt::format("{:.1e}", tolerance),
                            fmt::format("{:.5g}", shown), fmt::format("{:.1e}", e.mean_residual),
                            fmt::format("{:.1f}%", 100 * e.converged_share),
                            fmt::format("{:.1f}", e.evaluations), leak_text(moved)});
    }
    values.series.push_back(value);
    leaks.series.push_back(leak);
  }
  found.charts = {values, leaks};
  return found;
}

}  // namespace deq
