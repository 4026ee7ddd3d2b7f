// What one segment does in training: forward, loss, backward. The trainer's steps and dry runs are
// made of it.
#pragma once

#include <memory>
#include <optional>

#include "deq/data/stream.h"
#include "deq/train/options.h"

namespace deq {

/// The weights of the run's seed, on its device.
std::shared_ptr<LanguageModel> seeded_model(const TrainOptions& options, int64_t vocabulary);

/// The parameters of a model by name, shared, not copied.
NamedTensors parameters_of(const LanguageModel& model);

/// How training solves a segment of a text, or of `sequences`.
ForwardOptions training_forward(const TrainOptions& options, bool sequences);

/// What a segment was like.
struct SegmentPass {
  double loss = 0;                 ///< nats per target that is scored
  std::optional<double> jacobian;  ///< |J|_F^2 / n, where it was asked for
  Report forward;                  ///< of an explicit network only its evaluations
  std::optional<Report> adjoint;   ///< none where the gradient solves for none
  Histories histories;             ///< for the segment behind it
};

/// Adds `share` times the gradients of loss + jacobian_weight |J|_F^2 / n to those of the model's
/// parameters.
SegmentPass pass_segment(LanguageModel& model, const Segment& segment, const Histories& histories,
                         ForwardOptions how, double jacobian_weight, double share);

}  // namespace deq
