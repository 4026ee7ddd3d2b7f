#include "deq/measure/memory.h"

#include <fmt/format.h>

#include "deq/gradients/implicit.h"
#include "deq/runs/dry_run.h"

namespace deq {
namespace {

double megabytes(const TrainOptions& options) {
  return double(dry_run(options).activation_bytes) / 1e6;
}

/// Exactly `depth` evaluations forward, and as many products backward.
TrainOptions equilibrium_of(TrainOptions options, int64_t depth) {
  const StopRule stop{.max_steps = depth, .rel_tol = 0};
  options.model.depth = {};
  options.equilibrium.stop = stop;
  Implicit gradient;
  if (const auto* given = options.equilibrium.gradient.get_if<Implicit>()) gradient = *given;
  gradient.stop = stop;
  options.equilibrium.gradient = gradient;
  return options;
}

TrainOptions network_of(TrainOptions options, int64_t depth, bool checkpointed) {
  options.model.depth = {.depth = depth, .tied = true, .checkpointed = checkpointed};
  return options;
}

}  // namespace

Measurement measure_memory(const TrainOptions& options, const MemoryOptions& how) {
  for (const int64_t depth : how.depths)
    DEQ_CHECK(depth >= 1 && depth <= 1 << 16, "depths = {}; expected 1 to {} each",
              fmt::join(how.depths, ","), 1 << 16);
  Measurement found;
  found.columns = {"depth",
                   "equilibrium, MB",
                   "network, MB",
                   "checkpointed, MB",
                   "less than the network",
                   "less than checkpointed"};
  Chart chart{{"Memory of a training step", "evaluations, or levels", "MB", true, true},
              {{"equilibrium", {}}, {"weight-tied network", {}}, {"checkpointed", {}}}};
  for (const int64_t depth : how.depths) {
    const double at[] = {megabytes(equilibrium_of(options, depth)),
                         megabytes(network_of(options, depth, false)),
                         megabytes(network_of(options, depth, true))};
    for (size_t i = 0; i < 3; ++i) chart.series[i].points.emplace_back(double(depth), at[i]);
    found.rows.push_back({fmt::format("{}", depth), fmt::format("{:.1f}", at[0]),
                          fmt::format("{:.1f}", at[1]), fmt::format("{:.1f}", at[2]),
                          fmt::format("{:.0f}%", 100 * (1 - at[0] / at[1])),
                          fmt::format("{:.0f}%", 100 * (1 - at[0] / at[2]))});
  }
  found.charts = {chart};
  return found;
}

}  // namespace deq
