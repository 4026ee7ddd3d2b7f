// What of a trainer stands in a checkpoint: everything that its next step depends on.
#include <ATen/ATen.h>

#include "deq/base/device.h"
#include "deq/train/trainer.h"

namespace deq {

using at::Tensor;

namespace {

constexpr const char* kModel = "model.";
constexpr const char* kOptimizer = "optimizer.";
constexpr const char* kHistory = "history.";
constexpr const char* kAverage = "average.";
constexpr const char* kCarried = "carried.";
constexpr const char* kRemembered = "remembered.";
constexpr const char* kDeviceRandom = "random.device";

at::Generator default_generator(at::Device device) {
  return at::globalContext().defaultGenerator(device);
}

/// The entries of `all` whose names begin with `prefix`, without it.
NamedTensors section(const NamedTensors& all, const std::string& prefix) {
  NamedTensors part;
  for (const auto& [name, tensor] : all) {
    if (name.rfind(prefix, 0) == 0) part[name.substr(prefix.size())] = tensor;
  }
  return part;
}

const Tensor& require(const NamedTensors& state, const std::string& name) {
  const auto found = state.find(name);
  DEQ_CHECK(found != state.end(), "checkpoint: '{}' is missing", name);
  return found->second;
}

/// Of each row, from a checkpoint.
std::vector<int64_t> hidden_positions(const Tensor& held, const History& history) {
  const int64_t rows = history.z.defined() ? history.z.size(0) : 0, length = history.length();
  DEQ_CHECK(held.scalar_type() == at::kLong && held.sizes() == at::IntArrayRef({rows}),
            "checkpoint: hidden positions are {} [{}]; expected Long [{}]",
            c10::toString(held.scalar_type()), fmt::join(held.sizes(), ", "), rows);
  std::vector<int64_t> hidden;
  for (int64_t row = 0; row < rows; ++row) {
    hidden.push_back(held[row].item<int64_t>());
    DEQ_CHECK(hidden.back() >= 0 && hidden.back() <= length,
              "checkpoint: {} hidden positions; expected 0 to {}", hidden.back(), length);
  }
  return hidden;
}

Histories read_histories(const NamedTensors& held, int64_t levels, at::Device device) {
  Histories histories;
  if (!held.empty()) histories.resize(size_t(levels));
  for (size_t level = 0; level < histories.size(); ++level) {
    const auto part = [&](const char* name) {
      const auto found = held.find(std::to_string(level) + name);
      return found == held.end() ? Tensor() : found->second;
    };
    for (const auto& [name, place] :
         {std::pair{".z", &histories[level].z}, {".x", &histories[level].x}}) {
      const Tensor given = part(name);
      if (given.defined()) *place = given.to(device);
    }
    if (const Tensor hidden = part(".hidden"); hidden.defined())
      histories[level].hidden = hidden_positions(hidden, histories[level]);
  }
  return histories;
}

}  // namespace

NamedTensors Trainer::state() const {
  NamedTensors state;
  for (const auto& [name, tensor] : named_tensors(*model_)) state[kModel + name] = tensor.detach();
  for (const auto& [name, tensor] : descent_->state()) state[kOptimizer + name] = tensor;
  const Histories histories = shards_.join(histories_, options_.loop.batch.batch);
  for (size_t level = 0; level < histories.size(); ++level) {
    const std::string prefix = kHistory + std::to_string(level);
    if (histories[level].z.defined()) state[prefix + ".z"] = histories[level].z;
    if (histories[level].x.defined()) state[prefix + ".x"] = histories[level].x;
    if (!histories[level].hidden.empty())
      state[prefix + ".hidden"] = at::tensor(histories[level].hidden, at::kLong);
  }
  for (const auto& [name, tensor] : average_->state()) state[kAverage + name] = tensor;
  for (const auto& [name, tensor] : carried_.state()) state[kCarried + name] = tensor;
  for (const auto& [name, tensor] : remembered_.state()) state[kRemembered + name] = tensor;
  seed_draws(0, 0);  // with shards nobody's draws go on from it: the same for all
  state["random"] = default_generator(at::kCPU).get_state();
  if (model_->device().is_cuda())
    state[kDeviceRandom] = default_generator(model_->device()).get_state();
  state["step"] = at::scalar_tensor(step_, at::kLong);
  state["position"] = at::scalar_tensor(reader_.position(), at::kLong);
  for (const auto& [name, value] : schedule_.state())
    state["schedule." + name] = at::scalar_tensor(value, at::kDouble);
  return state;
}

void Trainer::restore(const NamedTensors& state) {
  load_weights(*model_, section(state, kModel), "checkpoint");
  descent_->restore(section(state, kOptimizer));
  average_->restore(section(state, kAverage));
  carried_.restore(section(state, kCarried), model_->device());
  remembered_.restore(section(state, kRemembered));
  histories_ = shards_.split(
      read_histories(section(state, kHistory), options_.model.depth.levels(), model_->device()));
  std::map<std::string, double> schedule;
  for (const auto& [name, tensor] : section(state, "schedule."))
    schedule[name] = tensor.item<double>();
  schedule_.restore(schedule);
  for (const char* name : {"step", "position"}) {
    DEQ_CHECK(require(state, name).numel() == 1,
              "checkpoint: '{}' has shape [{}]; expected one number", name,
              fmt::join(require(state, name).sizes(), ", "));
  }
  step_ = require(state, "step").item<int64_t>();
  reader_.seek(require(state, "position").item<int64_t>());
  default_generator(at::kCPU).set_state(require(state, "random"));
  // A run that goes on with another kind of device starts that one's numbers from the seed.
  if (model_->device().is_cuda() && state.count(kDeviceRandom))
    default_generator(model_->device()).set_state(state.at(kDeviceRandom));
}

}  // namespace deq
