#include "deq/cells/linear.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include "deq/cells/dropout.h"

namespace deq {

Linear::Linear(int64_t in, int64_t out, bool with_bias, bool normalised) {
  const at::Tensor zero = torch::zeros({out, in});
  if (normalised) {
    g_ = register_parameter("g", torch::zeros({out}));
    v_ = register_parameter("v", zero);
  } else {
    weight_ = register_parameter("weight", zero);
  }
  if (with_bias) bias_ = register_parameter("bias", torch::zeros({out}));
}

at::Tensor Linear::weight(double dropped) const {
  const at::Tensor& raw = weight_.defined() ? weight_ : v_;
  const at::Tensor kept =
      masked(raw, dropout_mask(raw.sizes(), dropped, is_training(), raw.detach()));
  // A row that is dropped entirely is zero, not 0 / 0.
  return weight_.defined() ? kept : kept * (g_ / kept.norm(2, {1}).clamp_min(1e-12)).unsqueeze(1);
}

void Linear::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  if (bias_.defined()) bias_.zero_();
  if (weight_.defined()) {
    weight_.normal_(0, std);
  } else {
    v_.normal_(0, std);
    g_.copy_(v_.norm(2, {1}));
  }
}

}  // namespace deq
