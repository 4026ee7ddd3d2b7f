#include "deq/train/objective.h"

#include <ATen/ATen.h>

#include "deq/train/score.h"

namespace deq {

ForwardOptions training_forward(const TrainOptions& options, bool sequences) {
  ForwardOptions how;
  how.equilibrium = options.equilibrium;
  how.history = sequences ? 0 : options.loop.batch.history;
  how.subsequence = options.loop.batch.subsequence;
  how.start = options.loop.path.start;
  how.noise = options.loop.path.noise;
  return how;
}

Pass pass_batch(Model& model, const Batch& batch, const Histories& histories, ForwardOptions how,
                const Weights& weights, double share, const Whole& whole) {
  Pass pass;
  how.on_adjoint = [&, told = how.on_adjoint](const Report& adjoint) {
    pass.adjoint = adjoint;
    if (told) told(adjoint);
  };
  LayerOutput output = model.forward(batch.tokens, histories, how);
  const Losses losses = losses_of(model, output.z, batch.targets);
  const int64_t targets = whole.targets >= 0 ? whole.targets : losses.count;
  at::Tensor loss = losses.nats.sum() / double(std::max<int64_t>(1, targets));
  pass.loss = loss.item<double>();
  if (output.jacobian_loss.defined()) {
    pass.jacobian = output.jacobian_loss.item<double>();
    loss = loss + weights.jacobian * whole.rows * output.jacobian_loss;
  }
  if (output.rest_loss.defined()) {
    const at::Tensor rest = (output.rest_loss * right_problems(model, output.z, batch)).mean();
    pass.rest = rest.item<double>();
    loss = loss + weights.rest * whole.rows * rest;
  }
  (loss * share).backward();
  pass.forward = std::move(output.report);
  pass.histories = std::move(output.histories);
  pass.z = output.z.detach();
  return pass;
}

}  // namespace deq
