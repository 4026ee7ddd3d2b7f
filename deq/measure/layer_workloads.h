// The workloads of `deq measure layers`, by layer.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "deq/measure/layers.h"
#include "deq/solvers/report.h"

namespace deq {

/// A name and what runs it; a workload's costs have that name.
struct LayerWorkload {
  std::string name;
  std::function<std::vector<LayerCost>(const LayersOptions&)> run;
};

std::vector<LayerWorkload> quadratic_workloads();
std::vector<LayerWorkload> maxsat_workloads();
std::vector<LayerWorkload> contact_workloads();
std::vector<LayerWorkload> ode_workloads();
std::vector<LayerWorkload> monotone_workloads();

/// The least processor time of so many calls: what other work on a machine adds to least.
double least_milliseconds(int64_t repeats, const std::function<void()>& work);
/// What this process has used so far.
double processor_seconds();

/// Samples of a workload that has `own` of them.
inline int64_t samples_of(const LayersOptions& options, int64_t own) {
  return options.batch > 0 ? options.batch : own;
}
/// Its time, and what its report says.
LayerCost cost_of(std::string part, double milliseconds, const Report& report);

}  // namespace deq
