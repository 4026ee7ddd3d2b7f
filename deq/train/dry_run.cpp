#include "deq/train/dry_run.h"

#include <ATen/ATen.h>

#include <chrono>

#include "deq/base/memory_meter.h"
#include "deq/train/trainer.h"

namespace deq {
namespace {

using Clock = std::chrono::steady_clock;

int64_t vocabulary_of(const Words& words) {
  DEQ_CHECK(words.vocabulary >= 2,
            "task-vocabulary = {}; expected the number of words, as no text is read",
            words.vocabulary);
  return words.vocabulary;
}
int64_t vocabulary_of(const Bytes&) { return 256; }
int64_t vocabulary_of(const CopyMemory&) { return CopyMemory::kSymbols; }
int64_t vocabulary_of(const Characters&) {
  throw Error(
      "task = characters: their number is that of a text, and none is read; expected words, "
      "bytes or copy-memory");
}

int64_t parameter_bytes(const LanguageModel& model) {
  int64_t bytes = 0;
  for (const at::Tensor& p : model.parameters()) bytes += int64_t(p.nbytes());
  return bytes;
}

}  // namespace

DryRun dry_run(const TrainOptions& options) {
  validate(options, "TrainOptions");
  const BatchOptions& batch = options.loop.batch;
  DryRun run;
  run.vocabulary = std::visit([](const auto& task) { return vocabulary_of(task); }, options.task);
  at::manual_seed(uint64_t(options.loop.run.seed));
  LanguageModel model(options.model, run.vocabulary);
  run.parameters = model.parameter_count(true);
  run.parameters_without_embedding = model.parameter_count(false);
  run.tokens = batch.batch * batch.length;
  const auto draw = [&] {
    return at::randint(run.vocabulary, {batch.batch, batch.length}, at::kLong);
  };
  ForwardOptions how;
  how.equilibrium = options.equilibrium;
  how.history = batch.history;
  how.subsequence = batch.subsequence;
  how.on_adjoint = [&](const Report& adjoint) { run.adjoint = adjoint; };
  Histories histories;
  if (batch.history > 0) {
    c10::NoGradGuard no_tape;
    histories = model.forward(draw(), {}, how).histories;
  }
  const at::Tensor tokens = draw(), targets = draw();
  NamedTensors parameters;
  for (const auto& item : model.named_parameters()) parameters[item.key()] = item.value();
  Descent descent(options.loop.optimization.optimizer, parameters);
  const auto start = Clock::now();
  const int64_t peak = peak_tensor_bytes([&] {
    const ModelOutput output = model.forward(tokens, histories, how);
    const at::Tensor loss = model.loss(output.z, targets).mean();
    run.loss = loss.item<double>();
    run.forward = output.report;
    loss.backward();
  });
  run.activation_bytes = std::max<int64_t>(0, peak - parameter_bytes(model));
  descent.step(options.loop.optimization.schedule.rate);
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return run;
}

}  // namespace deq
