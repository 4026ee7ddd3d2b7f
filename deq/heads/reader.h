#pragma once

#include <torch/nn/module.h>

namespace deq {

/// From the symbols of a batch to what a layer sees of them: (B, T) int64 -> x (B, T, X). The
/// places of a grid come one after the other.
class Reader : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const at::Tensor& tokens) const = 0;
  /// Weights ~ N(0, std).
  virtual void initialise(double std) = 0;
};

}  // namespace deq
