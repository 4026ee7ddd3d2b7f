// Residual against evaluations, for weight-tied iteration, Anderson and Broyden (Bai et al. 2019,
// Figures 2 and 4), by sample and by position.
#pragma once

#include "deq/measure/measurement.h"
#include "deq/runs/run.h"

namespace deq {

/// What measure_convergence is told.
struct ConvergenceOptions {
  int64_t segments = 8;
  int64_t steps = 60;

  static void fields(auto& self, auto&& field) {
    field("segments", self.segments, "of the validation split, each of eval-length positions",
          between(1, 4096));
    field("steps", self.steps, "evaluations at most", between(2, 4096));
  }
};

/// Solves the first segments of the split behind one of history (sequences without), once for each
/// method and scope. Rows: evaluations until the median row, and the slowest, is at a relative
/// residual; a row is a sample, or a position with all that it depends on. Throws deq::Error for an
/// explicit network.
Measurement measure_convergence(const TrainedModel& run, const std::string& name,
                                const Split& split, const ConvergenceOptions& options);

}  // namespace deq
