// What training leaves, compared to the bit.
#pragma once

#include <ATen/ATen.h>

#include "deq/train/trainer.h"

namespace deq::testing {

inline Trainer trainer_of(const TrainOptions& options) {
  return Trainer(options, load(options.task, ""));
}

inline NamedTensors after(const TrainOptions& options, int64_t steps) {
  Trainer trainer = trainer_of(options);
  for (int64_t step = 0; step < steps; ++step) trainer.step();
  NamedTensors held;
  for (const auto& [name, tensor] : trainer.state()) held[name] = tensor.clone();
  return held;
}

inline bool same(const NamedTensors& a, const NamedTensors& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    if (!b.count(name) || !at::equal(tensor, b.at(name))) return false;
  }
  return true;
}

}  // namespace deq::testing
