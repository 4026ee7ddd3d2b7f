// Evaluations over training, of runs side by side (Bai et al. 2021, "Stabilizing Equilibrium Models
// by Jacobian Regularization", Figure 2: with the regularisation they stay few).
#pragma once

#include "deq/measure/measurement.h"
#include "deq/report/run_record.h"

namespace deq {

/// What measure_training is told.
struct TrainingOptions {
  int64_t parts = 6;

  static void fields(auto& self, auto&& field) {
    field("parts", self.parts, "of a run's steps, each with its means", between(1, 1000));
  }
};

/// From metrics.jsonl, the steps after shallow pre-training in equal parts: means of the loss, of
/// evaluations and residual of the forward solve, of products with the Jacobian in the adjoint's,
/// and of |J|^2 / n where it was estimated. Throws deq::Error for a run without such a step.
Measurement measure_training(const std::vector<RunRecord>& runs, const TrainingOptions& options);

}  // namespace deq
