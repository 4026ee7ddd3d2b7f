#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace deq {

/// From a layer's output to its answer, and to the loss of the right one.
class Head {
 public:
  virtual ~Head() = default;

  /// -log p(target) in nats, (B, T), of targets (B, T) int64 that are all known, given the hidden
  /// states (B, T, O).
  virtual at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets) const = 0;

  /// log p of every symbol at each place, (B, T, symbols).
  virtual at::Tensor log_probabilities(const at::Tensor& hidden) const = 0;

  /// Weights ~ N(0, std) but for those that it shares; biases 0.
  virtual void initialise(double std) = 0;

  /// What holds its parameters, by the names that checkpoints have.
  using Parts = std::vector<std::pair<std::string, std::shared_ptr<torch::nn::Module>>>;
  virtual Parts parts() const = 0;
};

}  // namespace deq
