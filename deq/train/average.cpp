#include "deq/train/average.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

Average::Average(NamedTensors weights, double rate) : weights_(std::move(weights)), rate_(rate) {
  if (!kept()) return;
  for (const auto& [name, weight] : weights_) average_[name] = weight.detach().clone();
}

void Average::step() {
  if (!kept()) return;
  c10::AutoGradMode no_tape(false);
  const double r = std::min(rate_, double(1 + steps_) / double(10 + steps_));
  for (auto& [name, average] : average_) average.lerp_(weights_.at(name).detach(), 1 - r);
  ++steps_;
}

void Average::swap() {
  if (!kept()) return;
  c10::AutoGradMode no_tape(false);
  for (auto& [name, average] : average_) {
    Tensor weight = weights_.at(name).detach();
    const Tensor held = average.clone();
    average.copy_(weight);
    weight.copy_(held);
  }
}

NamedTensors Average::state() const {
  if (!kept()) return {};
  NamedTensors state;
  for (const auto& [name, average] : average_) state["value." + name] = average;
  state["steps"] = at::scalar_tensor(steps_, at::kLong);
  return state;
}

void Average::restore(const NamedTensors& state) {
  if (!kept()) return;
  const auto part = [&](const std::string& name) {
    const auto found = state.find(name);
    DEQ_CHECK(found != state.end(), "checkpoint: 'average.{}' is missing", name);
    return found->second;
  };
  for (auto& [name, average] : average_) {
    const Tensor held = part("value." + name);
    DEQ_CHECK(held.sizes() == average.sizes(),
              "checkpoint: 'average.value.{}' has shape [{}]; expected [{}]", name,
              fmt::join(held.sizes(), ", "), fmt::join(average.sizes(), ", "));
    average.copy_(held);
  }
  steps_ = part("steps").item<int64_t>();
}

}  // namespace deq
