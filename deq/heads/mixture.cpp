#include "deq/heads/mixture.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include "deq/cells/dropout.h"
#include "deq/ops/affine.h"

namespace deq {

using at::Tensor;

Mixture::Mixture(const MixtureOptions& options, int64_t in, int64_t out)
    : options_(options), out_(out) {
  validate(options, "Mixture");
  const int64_t K = options.experts;
  state_weight_ = register_parameter("state_weight", torch::zeros({K * out, in}));
  state_bias_ = register_parameter("state_bias", torch::zeros({K * out}));
  share_weight_ = register_parameter("share_weight", torch::zeros({K, in}));
  share_bias_ = register_parameter("share_bias", torch::zeros({K}));
}

void Mixture::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  state_weight_.normal_(0, std);
  share_weight_.normal_(0, std);
  state_bias_.zero_();
  share_bias_.zero_();
}

Mixture::Output Mixture::forward(const Tensor& hidden) const {
  const int64_t B = hidden.size(0), T = hidden.size(1), K = options_.experts;
  const Tensor mask = dropout_mask({B, 1, K * out_}, options_.dropout, is_training(), hidden);
  const Tensor states =
      masked(ops::affine(hidden, ops::affine_weight(state_weight_), state_bias_), mask).tanh();
  return {at::log_softmax(ops::affine(hidden, ops::affine_weight(share_weight_), share_bias_), 2),
          states.view({B, T, K, out_})};
}

}  // namespace deq
