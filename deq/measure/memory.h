// Memory of a training step against effective depth: an equilibrium of so many evaluations, and
// the same cell as a weight-tied network of so many levels, checkpointed or not (Bai et al. 2019,
// Tables 2 to 4: up to 88% less than the network, 37% less than checkpointing it).
#pragma once

#include "deq/measure/measurement.h"
#include "deq/train/options.h"

namespace deq {

/// What measure_memory is told.
struct MemoryOptions {
  std::vector<int64_t> depths = {8, 16, 32, 64, 128, 256, 512};

  static void fields(auto& self, auto&& field) {
    field("depths", self.depths, "evaluations of the equilibrium, levels of the network");
  }
};

/// One step each (dry_run), on made-up tokens: tensors alive at the peak of forward and backward,
/// besides parameters, gradients and the optimiser's state. Forward and adjoint solve run exactly
/// `depth` evaluations.
Measurement measure_memory(const TrainOptions& options, const MemoryOptions& how);

}  // namespace deq
