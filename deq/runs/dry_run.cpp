#include "deq/runs/dry_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <chrono>

#include "deq/base/device.h"
#include "deq/base/memory_meter.h"
#include "deq/data/readers.h"
#include "deq/train/objective.h"
#include "deq/train/weights.h"

namespace deq {
namespace {

using Clock = std::chrono::steady_clock;

/// What a step is made of: random tokens of a text, which is not read, or problems of the task.
struct Sample {
  Vocabularies symbols;
  Batch batch;
};

Sample text_of(const TrainOptions& options) {
  const int64_t known = options.task->known_vocabulary();
  DEQ_CHECK(known >= 2,
            "task = {}, task-vocabulary = {}: the vocabulary is that of a text, and none is read; "
            "expected task words with task-vocabulary >= 2, bytes, or one that makes sequences",
            options.task.name(), known);
  return {{known, known}, {}};
}

Sample problems_of(const TrainOptions& options) {
  const Corpus corpus = load(options.task, options.data);
  TrainingReader reader(corpus, {.batch = options.loop.batch.batch});
  return {{corpus.vocabulary.size(), corpus.answer_vocabulary().size()}, reader.next()};
}

}  // namespace

DryRun dry_run(const TrainOptions& options) {
  validate(options, "TrainOptions");
  const BatchOptions& batch = options.loop.batch;
  DryRun run;
  const bool text = continues_text(options.task);
  Sample sample = text ? text_of(options) : problems_of(options);
  run.vocabulary = sample.symbols.inputs;
  const std::shared_ptr<Model> owned = seeded_model(options, sample.symbols);
  Model& model = *owned;
  run.parameters = model.parameter_count(true);
  run.parameters_without_embedding = model.parameter_count(false);
  Weights weights;
  if (!model.is_explicit())
    weights = {options.loop.stability.jacobian_weight, options.loop.path.rest_weight};
  ForwardOptions how = training_forward(options, !text);
  how.jacobian_loss = weights.jacobian > 0;
  how.rest_loss = weights.rest > 0;
  Histories histories;
  if (text) {
    const auto draw = [&] {
      return at::randint(run.vocabulary, {batch.batch, batch.length}, at::kLong);
    };
    for (int64_t seen = 0; seen < how.history; seen += batch.length) {
      c10::NoGradGuard no_tape;
      histories = model.forward(draw(), histories, how).histories;
    }
    sample.batch = {.tokens = draw(), .targets = draw()};
  }
  run.tokens = sample.batch.tokens.numel();
  const NamedTensors parameters = parameters_of(model);
  for (const auto& [name, parameter] : parameters)
    at::Tensor(parameter).mutable_grad() = at::zeros_like(parameter);  // not an activation
  Descent descent(options.loop.optimization.optimizer, parameters);
  const auto start = Clock::now();
  Pass pass;
  run.activation_bytes =
      peak_tensor_bytes([&] { pass = pass_batch(model, sample.batch, histories, how, weights, 1); },
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
