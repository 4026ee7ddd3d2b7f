#pragma once

#include "deq/train/options.h"

namespace deq {

/// One step of a configuration on made-up tokens: does it build, does it fit, what does it cost.
struct DryRun {
  int64_t vocabulary = 0;
  int64_t parameters = 0, parameters_without_embedding = 0;
  int64_t tokens = 0;            ///< of the segment, or of the sequences
  int64_t activation_bytes = 0;  ///< tensors alive at the peak of forward and backward, besides
                                 ///< parameters, their gradients and the optimiser's state
  double loss = 0;               ///< nats per token
  Report forward;                ///< of an explicit network only its evaluations
  Report adjoint;                ///< empty where there was no adjoint solve
  double seconds = 0;            ///< of the step
};

/// Builds the model, solves one segment without a tape for its history, then takes one step of the
/// optimiser on the next. Tokens are drawn uniformly; nothing is read or written. Throws deq::Error
/// where the options do not tell the size of the vocabulary (task-vocabulary, for words).
DryRun dry_run(const TrainOptions& options);

}  // namespace deq
