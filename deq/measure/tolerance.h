// Perplexity against tolerance (Bai et al. 2019, Figure 3), with the residual it was found at and
// what leaks from the future at that tolerance: how much of a perplexity is real.
#pragma once

#include "deq/measure/measurement.h"
#include "deq/runs/run.h"

namespace deq {

/// What measure_tolerance is told.
struct ToleranceOptions {
  double loosest = 1, tightest = 1e-5;
  int64_t points = 8;
  int64_t steps = 100;
  int64_t tokens = 20000;

  static void fields(auto& self, auto&& field) {
    field("loosest", self.loosest, "relative residual at which solves end, at first", above(0));
    field("tightest", self.tightest, "and in the end", above(0));
    field("points", self.points, "tolerances, evenly spread between them on a logarithmic scale",
          between(2, 1000));
    field("steps", self.steps, "evaluations at most", between(1, 4096));
    field("tokens", self.tokens, "of the test split, or sequences; 0: all", at_least(0));
  }
};

/// The split at each tolerance by the run's own solver, and, where that leaks nothing, by Anderson
/// and Broyden over whole samples, as published code solves. Throws deq::Error for an explicit
/// network.
Measurement measure_tolerance(const TrainedModel& run, const Split& split,
                              const ToleranceOptions& options,
                              const std::function<void(double)>& progress = {});

}  // namespace deq
