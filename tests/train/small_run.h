// Small tasks and options for tests of training.
#pragma once

#include <string>

#include "deq/cells/transformer.h"
#include "deq/tasks/bytes.h"
#include "deq/tasks/copy_memory.h"
#include "deq/train/options.h"

namespace deq::testing {

inline std::string small_text() {
  std::string text;
  for (int i = 0; i < 120; ++i) {
    text += "the cat sat on mat number " + std::to_string(i * 7 % 23) + ", and dog " +
            std::to_string(i % 5) + " ran.\n";
  }
  return text;
}

/// Everything random or stateful is on: dropout, the random step limit, the Jacobian loss, history,
/// pre-training.
inline TrainOptions small_options() {
  TrainOptions options;
  options.task = Bytes{};
  Transformer cell;
  cell.width = 16;
  cell.heads = 2;
  cell.inner = 24;
  cell.dropout = {.hidden = 0.1, .attention = 0.1};
  options.model.cell = cell;
  options.model.input_dropout = 0.1;
  options.model.output_dropout = 0.1;
  options.equilibrium.stop = {.max_steps = 12, .rel_tol = 1e-3};
  options.loop.batch = {.batch = 4, .length = 12, .history = 12, .accumulate = 2};
  options.loop.limits = {.steps = 14, .eval_every = 6, .save_every = 4, .log_every = 1};
  options.loop.stability.pretrain_steps = 3;
  options.loop.stability.fewer_steps = 3;
  options.loop.stability.jacobian_weight = 0.5;
  options.loop.stability.jacobian_frequency = 0.5;
  options.eval = {.lanes = 4, .batch = 4, .length = 12, .history = 12};
  return options;
}

/// The same with sequences that stand alone.
inline TrainOptions small_copy_options() {
  TrainOptions options = small_options();
  options.task =
      CopyMemory{.delay = 5, .train_sequences = 100, .valid_sequences = 17, .test_sequences = 10};
  return options;
}

}  // namespace deq::testing
