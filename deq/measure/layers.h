// What layers that are defined by a condition cost on this machine: processor time on one thread,
// what is left of their conditions, and counts of what the time went into.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "deq/base/fields.h"
#include "deq/measure/measurement.h"

namespace deq {

/// What measure_layers is told.
struct LayersOptions {
  std::string only;
  int64_t repeats = 5;
  int64_t batch = 0;
  std::string data;
  int64_t epochs = 1;

  static void fields(auto& self, auto&& field) {
    field("only", self.only, "workloads whose names begin so; all if empty");
    field("repeats", self.repeats, "runs of each, of which the fastest counts",
          between(1, 1 << 20));
    field("batch", self.batch, "samples of every workload; 0: each has its own",
          between(0, 1 << 20));
    field(
        "data", self.data,
        "folder of MNIST's four files, for mondeq: its images in place of drawn ones, and epochs");
    field("epochs", self.epochs, "epochs of mondeq, with data", between(1, 1000));
  }
};

/// One part of one workload.
struct LayerCost {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::string workload, part;
  int64_t samples = 0;
  double milliseconds = 0;        ///< of all samples, processor time, the least of all runs
  double error = kNone;           ///< the worst residual; of `ode-stiff` the error
  double converged = kNone;       ///< share of samples
  double steps = kNone;           ///< mean over samples
  double evaluations = kNone;     ///< of an ODE's f, in one run, those of the slowest sample
  double factorisations = kNone;  ///< mean over samples
  std::string note;
};

/// Every workload of which `only` is the beginning, in double where nothing else is said, from
/// numbers drawn with one seed. Throws deq::Error where there is none, and for data that cannot be
/// read.
std::vector<LayerCost> measure_layers(const LayersOptions& options);

/// A row each; "–" for what a part has not.
Measurement table(const std::vector<LayerCost>& costs);
/// An array of objects with the names of LayerCost's members; null for what a part has not.
std::string json(const std::vector<LayerCost>& costs);

}  // namespace deq
