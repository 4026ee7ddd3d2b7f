// How far the gradient of each mode is from the exact one, and what it costs: the implicit gradient
// at several tolerances, its estimates from the forward solve (SHINE), one-step and phantom.
#pragma once

#include "deq/measure/measurement.h"
#include "deq/runs/run.h"

namespace deq {

/// What measure_gradients is told.
struct GradientsOptions {
  int64_t segments = 8;
  double forward_tol = 1e-4;
  int64_t steps = 200;

  static void fields(auto& self, auto&& field) {
    field("segments", self.segments, "of the validation split, each of eval-length positions",
          between(1, 4096));
    field("forward_tol", self.forward_tol, "relative residual of the equilibrium", above(0));
    field("steps", self.steps, "evaluations of a solve at most", between(1, 4096));
  }
};

/// The gradient of the first segments' mean loss behind one segment of history by the cell's
/// parameters, without dropout, once for each mode at the same equilibrium. Rows: products with the
/// Jacobian besides the last, the residual of the adjoint, the error relative to a gradient whose
/// adjoint is solved to 1e-6, and the cosine between the two; where `steps` do not reach that, its
/// row says so. Throws deq::Error for an explicit network.
Measurement measure_gradients(const TrainedModel& run, const Split& split,
                              const GradientsOptions& options);

}  // namespace deq
