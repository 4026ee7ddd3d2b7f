#include "deq/train/segment.h"

#include <ATen/ATen.h>

#include "deq/base/device.h"
#include "deq/train/score.h"

namespace deq {

std::shared_ptr<LanguageModel> seeded_model(const TrainOptions& options, int64_t vocabulary) {
  const at::Device device = use_device(options.loop.run.device);
  at::manual_seed(uint64_t(options.loop.run.seed));  // of every device
  const auto model = std::make_shared<LanguageModel>(options.model, vocabulary);
  model->to(device);
  return model;
}

NamedTensors parameters_of(const LanguageModel& model) {
  NamedTensors parameters;
  for (const auto& item : model.named_parameters()) parameters[item.key()] = item.value();
  return parameters;
}

ForwardOptions training_forward(const TrainOptions& options, bool sequences) {
  ForwardOptions how;
  how.equilibrium = options.equilibrium;
  how.history = sequences ? 0 : options.loop.batch.history;
  how.subsequence = options.loop.batch.subsequence;
  return how;
}

SegmentPass pass_segment(LanguageModel& model, const Segment& segment, const Histories& histories,
                         ForwardOptions how, double jacobian_weight, double share) {
  SegmentPass pass;
  how.on_adjoint = [&](const Report& adjoint) { pass.adjoint = adjoint; };
  ModelOutput output = model.forward(segment.tokens, histories, how);
  const Losses losses = losses_of(model, output.z, segment.targets);
  at::Tensor loss = losses.nats.sum() / double(losses.count);
  pass.loss = loss.item<double>();
  if (output.jacobian_loss.defined()) {
    pass.jacobian = output.jacobian_loss.item<double>();
    loss = loss + jacobian_weight * output.jacobian_loss;
  }
  (loss * share).backward();
  pass.forward = std::move(output.report);
  pass.histories = std::move(output.histories);
  return pass;
}

}  // namespace deq
