#include "deq/train/dry_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <chrono>

#include "deq/base/device.h"
#include "deq/base/memory_meter.h"
#include "deq/train/segment.h"

namespace deq {
namespace {

using Clock = std::chrono::steady_clock;

int64_t vocabulary_of(const Task& task) {
  const int64_t known = task->known_vocabulary();
  DEQ_CHECK(known >= 2,
            "task = {}, task-vocabulary = {}: the vocabulary is that of a text, and none is read; "
            "expected task words with task-vocabulary >= 2, bytes, or one that makes sequences",
            task.name(), known);
  return known;
}

}  // namespace

DryRun dry_run(const TrainOptions& options) {
  validate(options, "TrainOptions");
  const BatchOptions& batch = options.loop.batch;
  DryRun run;
  run.vocabulary = vocabulary_of(options.task);
  const std::shared_ptr<LanguageModel> owned = seeded_model(options, run.vocabulary);
  LanguageModel& model = *owned;
  run.parameters = model.parameter_count(true);
  run.parameters_without_embedding = model.parameter_count(false);
  const int64_t whole = options.task->sequence_length();  // sequences are not cut
  const int64_t length = whole > 0 ? whole : batch.length;
  run.tokens = batch.batch * length;
  const auto draw = [&] { return at::randint(run.vocabulary, {batch.batch, length}, at::kLong); };
  const double jacobian_weight = model.is_explicit() ? 0 : options.loop.stability.jacobian_weight;
  ForwardOptions how = training_forward(options, whole > 0);
  how.jacobian_loss = jacobian_weight > 0;
  Histories histories;
  for (int64_t seen = 0; seen < how.history; seen += length) {
    c10::NoGradGuard no_tape;
    histories = model.forward(draw(), histories, how).histories;
  }
  const Segment segment{.tokens = draw(), .targets = draw()};
  const NamedTensors parameters = parameters_of(model);
  for (const auto& [name, parameter] : parameters)
    at::Tensor(parameter).mutable_grad() = at::zeros_like(parameter);  // not an activation
  Descent descent(options.loop.optimization.optimizer, parameters);
  const auto start = Clock::now();
  SegmentPass pass;
  run.activation_bytes = peak_tensor_bytes(
      [&] { pass = pass_segment(model, segment, histories, how, jacobian_weight, 1); },
      model.device().type());
  run.loss = pass.loss;
  run.forward = std::move(pass.forward);
  if (pass.adjoint) run.adjoint = std::move(*pass.adjoint);
  descent.clip(options.loop.stability.clip);
  descent.step(options.loop.optimization.schedule.rate);
  synchronize(model.device());
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return run;
}

}  // namespace deq
