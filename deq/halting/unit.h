#pragma once

#include <torch/nn/module.h>

namespace deq {

/// One number for each sample of what a model reads of its states: <weight, o> + bias at each of
/// its places, of which it is the least or the mean.
class HaltingUnit final : public torch::nn::Module {
 public:
  HaltingUnit(int64_t width, bool least);

  /// outputs (B, places, width) -> (B). A sample's number does not depend on the others.
  at::Tensor forward(const at::Tensor& outputs) const;
  /// Weights ~ N(0, std).
  void initialise(double std, double bias);

 private:
  bool least_;
  at::Tensor weight_;  // (width)
  at::Tensor bias_;    // ()
};

}  // namespace deq
