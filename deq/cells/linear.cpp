#include "deq/cells/linear.h"

#include <ATen/ATen.h>
#include <torch/types.h>

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

at::Tensor Linear::weight() const {
  if (weight_.defined()) return weight_;
  return v_ * (g_ / v_.norm(2, {1})).unsqueeze(1);
}

void Linear::initialise(double std) {
  at::AutoGradMode no_tape(false);
  if (bias_.defined()) bias_.zero_();
  if (weight_.defined()) {
    weight_.normal_(0, std);
  } else {
    v_.normal_(0, std);
    g_.copy_(v_.norm(2, {1}));
  }
}

}  // namespace deq
