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
  how.states = options.model.halting->learned();
  return how;
}

namespace {

/// Of all states at once: what is (states B, ...) becomes (B, states).
at::Tensor by_sample(const at::Tensor& all, int64_t states) {
  return all.view({states, -1}).transpose(0, 1);
}

ChainLoss halting_loss(const Model& model, const Batch& batch,
                       const std::vector<at::Tensor>& states) {
  const auto repeated = [&batch](size_t count) {
    std::vector<at::Tensor> copies(count, batch.targets);
    return Batch{.targets = at::cat(copies), .answer = batch.answer};
  };
  Chain chain;
  chain.states = states;
  std::vector<at::Tensor> logits;
  for (const at::Tensor& z : states) logits.push_back(model.halting_logits(z));
  chain.logits = at::stack(logits, 1);
  chain.nats = [&](const std::vector<at::Tensor>& some) {
    const at::Tensor nats = model.loss(at::cat(some), repeated(some.size()).targets);
    return by_sample(nats.flatten(1).sum(1), int64_t(some.size()));
  };
  chain.right = [&](const std::vector<at::Tensor>& some) {
    return by_sample(right_problems(model, at::cat(some), repeated(some.size())),
                     int64_t(some.size()));
  };
  return model.options().halting->loss(chain);
}

}  // namespace

Pass pass_batch(Model& model, const Batch& batch, const Histories& histories, ForwardOptions how,
                const Weights& weights, double share, const Whole& whole) {
  Pass pass;
  how.on_adjoint = [&, told = how.on_adjoint](const Report& adjoint) {
    pass.adjoint = adjoint;
    if (told) told(adjoint);
  };
  LayerOutput output = model.forward(batch.tokens, histories, how);
  ChainLoss halting;
  Losses losses;
  if (how.states) {
    halting = halting_loss(model, batch, output.states);
    losses = {halting.nats, batch.targets.ge(0).sum().item<int64_t>()};
  } else {
    losses = losses_of(model, output.z, batch.targets);
  }
  const int64_t targets = whole.targets >= 0 ? whole.targets : losses.count;
  at::Tensor loss = losses.nats.sum() / double(std::max<int64_t>(1, targets));
  pass.loss = loss.item<double>();
  if (halting.beside.defined()) {
    pass.halting = halting.beside.item<double>();
    pass.halting_steps = halting.steps.mean().item<double>();
    loss = loss + whole.rows * halting.beside;
  }
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
