#include "deq/train/dry_run.h"

#include <ATen/ATen.h>

#include <chrono>

#include "deq/base/device.h"
#include "deq/base/memory_meter.h"
#include "deq/train/trainer.h"

namespace deq {
namespace {

using Clock = std::chrono::steady_clock;

int64_t vocabulary_of(const Task& task) {
  const int64_t known = task->known_vocabulary();
  DEQ_CHECK(known >= 2,
            "task = {}: its vocabulary is that of a text, and none is read; expected "
            "task-vocabulary with words, or a task that needs no text for it",
            task.name());
  return known;
}

}  // namespace

DryRun dry_run(const TrainOptions& options) {
  validate(options, "TrainOptions");
  const BatchOptions& batch = options.loop.batch;
  DryRun run;
  run.vocabulary = vocabulary_of(options.task);
  at::manual_seed(uint64_t(options.loop.run.seed));
  const at::Device device = use_device(options.loop.run.device);
  LanguageModel model(options.model, run.vocabulary);
  model.to(device);
  run.parameters = model.parameter_count(true);
  run.parameters_without_embedding = model.parameter_count(false);
  const int64_t whole = options.task->sequence_length();  // sequences are not cut
  const int64_t length = whole > 0 ? whole : batch.length;
  run.tokens = batch.batch * length;
  const auto draw = [&] { return at::randint(run.vocabulary, {batch.batch, length}, at::kLong); };
  const double jacobian_weight = model.is_explicit() ? 0 : options.loop.stability.jacobian_weight;
  ForwardOptions how;
  how.equilibrium = options.equilibrium;
  how.history = whole > 0 ? 0 : batch.history;
  how.jacobian_loss = jacobian_weight > 0;
  how.subsequence = batch.subsequence;
  how.on_adjoint = [&](const Report& adjoint) { run.adjoint = adjoint; };
  Histories histories;
  for (int64_t seen = 0; seen < how.history; seen += length) {
    c10::NoGradGuard no_tape;
    histories = model.forward(draw(), histories, how).histories;
  }
  const at::Tensor tokens = draw(), targets = draw();
  NamedTensors parameters;
  for (const auto& item : model.named_parameters()) {
    parameters[item.key()] = item.value();
    at::Tensor(item.value()).mutable_grad() = at::zeros_like(item.value());  // not an activation
  }
  Descent descent(options.loop.optimization.optimizer, parameters);
  const auto start = Clock::now();
  run.activation_bytes = peak_tensor_bytes(
      [&] {
        const ModelOutput output = model.forward(tokens, histories, how);
        at::Tensor loss = model.loss(output.z, targets).mean();
        run.loss = loss.item<double>();
        run.forward = output.report;
        if (output.jacobian_loss.defined()) loss = loss + jacobian_weight * output.jacobian_loss;
        loss.backward();
      },
      device.type());
  descent.step(options.loop.optimization.schedule.rate);
  synchronize(device);
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return run;
}

}  // namespace deq
