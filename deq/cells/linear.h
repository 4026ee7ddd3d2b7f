#pragma once

#include <torch/nn/module.h>

namespace deq {

/// A linear map whose weight may be normalised (Salimans and Kingma 2016): row i of W is g_i v_i /
/// |v_i|.
class Linear : public torch::nn::Module {
 public:
  /// Parameters: `weight` (out, in), or with `normalised` `g` (out) and `v` (out, in); `bias`
  /// (out).
  Linear(int64_t in, int64_t out, bool with_bias, bool normalised);

  /// The weight in force, (out, in), taped: computed once per solve by the cell that binds it. In
  /// training mode, a share `dropped` of the weight (of v, where it is normalised) is dropped
  /// (DropConnect, Wan et al. 2013).
  at::Tensor weight(double dropped = 0) const;
  const at::Tensor& bias() const { return bias_; }

  /// v (or weight) ~ N(0, std), bias 0, and g = |v|: the weight in force is N(0, std) either way.
  void initialise(double std);

 private:
  at::Tensor weight_, g_, v_, bias_;
};

}  // namespace deq
