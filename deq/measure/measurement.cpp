#include "deq/measure/measurement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>

#include "deq/base/error.h"
#include "deq/layers/condition.h"
#include "deq/runs/run.h"

namespace deq {

std::string markdown(const Measurement& found) {
  std::string out = fmt::format("| {} |\n|", fmt::join(found.columns, " | "));
  for (size_t i = 0; i < found.columns.size(); ++i) out += "---|";
  out += "\n";
  for (const auto& row : found.rows) {
    DEQ_CHECK(row.size() == found.columns.size(), "measurement: a row of {} cells; expected {}",
              row.size(), found.columns.size());
    out += fmt::format("| {} |\n", fmt::join(row, " | "));
  }
  return out;
}

void check_iterates(const TrainedModel& run) {
  check_equilibrium(run);
  DEQ_CHECK(!has_condition(run.options.model.cell),
            "run '{}' is of cell {}, which meets a condition of its own, whatever the solver and "
            "the gradient; expected one with f(z, x)",
            run.folder, run.options.model.cell.name());
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace deq
