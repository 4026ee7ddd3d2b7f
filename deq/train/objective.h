// What one batch does in training: forward, loss, backward. The trainer's steps and dry runs are
// made of it.
#pragma once

#include <optional>

#include "deq/data/batch.h"
#include "deq/train/options.h"

namespace deq {

/// How training solves a segment of a text, or of `sequences`.
ForwardOptions training_forward(const TrainOptions& options, bool sequences);

/// What a batch was like.
struct Pass {
  double loss = 0;                 ///< nats per target that is scored
  std::optional<double> jacobian;  ///< |J|_F^2 / n, where it was asked for
  std::optional<double> rest;      ///< of those that are right, where it was asked for
  std::optional<double> halting;   ///< what a learned halting rule adds to the loss
  double halting_steps = 0;        ///< mean over samples, where there is such a rule
  Report forward;                  ///< of an explicit network only its evaluations
  std::optional<Report> adjoint;   ///< none where the gradient solves for none
  Histories histories;             ///< for the segment behind it
  at::Tensor z;                    ///< (B, T, D) where it ended, without its tape
};

/// What stands in a loss beside its targets.
struct Weights {
  double jacobian = 0;  ///< of |J|_F^2 / n, where `ForwardOptions` ask for it
  double rest = 0;      ///< of |f(z) - z|^2 / |f(z)|^2, a mean over a batch of those that are right
};

/// What a batch is a part of.
struct Whole {
  int64_t targets = -1;  ///< that are scored, by which losses are divided; -1: the batch's own
  double rows = 1;       ///< the share of its rows that are this batch's
};

/// Adds `share` times the gradients of the loss, and of what is weighed beside it, to those of the
/// model's parameters. Of a part of a batch: its part of both, so that those of all parts add up to
/// what the whole gives.
Pass pass_batch(Model& model, const Batch& batch, const Histories& histories, ForwardOptions how,
                const Weights& weights, double share, const Whole& whole = {});

}  // namespace deq
