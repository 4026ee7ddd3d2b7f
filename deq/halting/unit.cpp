#include "deq/halting/unit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

namespace deq {

using at::Tensor;

HaltingUnit::HaltingUnit(int64_t width, bool least) : least_(least) {
  weight_ = register_parameter("weight", at::zeros({width}));
  bias_ = register_parameter("bias", at::zeros({}));
}

Tensor HaltingUnit::forward(const Tensor& outputs) const {
  const Tensor places = (outputs * weight_).sum(2) + bias_;  // (B, places)
  return least_ ? std::get<0>(places.min(1)) : places.mean(1);
}

void HaltingUnit::initialise(double std, double bias) {
  c10::AutoGradMode no_tape(false);
  weight_.normal_(0, std);
  bias_.fill_(bias);
}

}  // namespace deq
