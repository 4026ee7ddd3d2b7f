#include "deq/measure/layers.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "deq/base/error.h"
#include "deq/measure/layer_workloads.h"

namespace deq {
namespace {

std::vector<LayerWorkload> workloads() {
  std::vector<LayerWorkload> all;
  for (const auto& some : {quadratic_workloads(), maxsat_workloads(), contact_workloads(),
                           ode_workloads(), monotone_workloads()})
    all.insert(all.end(), some.begin(), some.end());
  return all;
}

std::string cell(const char* form, double value) {
  return std::isnan(value) ? "–" : fmt::format(fmt::runtime(form), value);
}

struct OneThread {
  const int before = at::get_num_threads();
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before); }
};

}  // namespace

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

double least_milliseconds(int64_t repeats, const std::function<void()>& work) {
  double least = std::numeric_limits<double>::infinity();
  for (int64_t run = 0; run < repeats; ++run) {
    const double begin = processor_seconds();
    work();
    least = std::min(least, 1e3 * (processor_seconds() - begin));
  }
  return least;
}

LayerCost cost_of(std::string part, double milliseconds, const Report& report) {
  LayerCost cost;
  cost.part = std::move(part);
  cost.milliseconds = milliseconds;
  cost.samples = report.reason.numel();
  cost.error = report.worst_residual();
  cost.converged = report.converged_share();
  cost.steps = report.steps.to(at::kDouble).mean().item<double>();
  return cost;
}

std::vector<LayerCost> measure_layers(const LayersOptions& options) {
  const OneThread one_thread;
  std::vector<LayerCost> costs;
  std::string known;
  for (const LayerWorkload& workload : workloads()) {
    known += (known.empty() ? "" : ", ") + workload.name;
    if (!workload.name.starts_with(options.only)) continue;
    at::manual_seed(0);
    for (LayerCost& cost : workload.run(options)) {
      cost.workload = workload.name;
      costs.push_back(std::move(cost));
    }
  }
  DEQ_CHECK(!costs.empty(), "only = '{}'; expected the beginning of one of: {}", options.only,
            known);
  return costs;
}

Measurement table(const std::vector<LayerCost>& costs) {
  Measurement found;
  found.columns = {"workload", "part",        "samples",        "ms",  "error", "converged",
                   "steps",    "evaluations", "factorisations", "note"};
  for (const LayerCost& cost : costs) {
    found.rows.push_back({cost.workload, cost.part, fmt::format("{}", cost.samples),
                          cell(cost.milliseconds < 100 ? "{:.3g}" : "{:.0f}", cost.milliseconds),
                          cell("{:.0e}", cost.error), cell("{:.1f}%", 100 * cost.converged),
                          cell("{:.1f}", cost.steps), cell("{:.0f}", cost.evaluations),
                          cell("{:.2f}", cost.factorisations), cost.note});
  }
  return found;
}

std::string json(const std::vector<LayerCost>& costs) {
  const auto number = [](double value) {
    return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
  };
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const LayerCost& cost : costs) {
    all.push_back({{"workload", cost.workload},
                   {"part", cost.part},
                   {"samples", cost.samples},
                   {"milliseconds", number(cost.milliseconds)},
                   {"error", number(cost.error)},
                   {"converged", number(cost.converged)},
                   {"steps", number(cost.steps)},
                   {"evaluations", number(cost.evaluations)},
                   {"factorisations", number(cost.factorisations)},
                   {"note", cost.note}});
  }
  return all.dump(2);
}

}  // namespace deq
