// The CPU path of relative_attention: one block of scores per head and sample, products through
// BLAS.
#pragma once

#include <vector>

#include "deq/ops/relative_attention.h"

namespace deq::ops {

/// Rows of D numbers side by side, one behind the other, as the kernels and BLAS read them: t
/// itself or a copy. (`contiguous()` would not do: it takes any stride where a dimension has size
/// 1.)
at::Tensor with_rows(const at::Tensor& t);

/// Inputs in the order of the autograd node; states and r as `with_rows` gives them.
struct AttentionInputs {
  at::Tensor q, k, v;         ///< (B, T, D)
  at::Tensor past_k, past_v;  ///< (B, M, D) or undefined
  at::Tensor r;               ///< (R, D)
  at::Tensor a, b;            ///< (D)
  at::Tensor mask;            ///< (B, H, T, K) contiguous or undefined
};
inline constexpr int kAttentionInputs = 9;

/// Which of q, k, v, past_k, past_v, r, a, b need a gradient.
struct AttentionWants {
  bool state = true;  ///< q, k, v
  bool rest = true;   ///< the others
};

bool attention_on_cpu(const AttentionInputs& in);

/// y (B, T, D); `probabilities`, when given, gets (B, H, T, K), which backward needs.
at::Tensor attention_forward_cpu(const AttentionInputs& in, const AttentionView& view,
                                 at::Tensor* probabilities);

/// Gradients of the inputs, in their order; undefined where not wanted. dy (B, T, D).
std::vector<at::Tensor> attention_backward_cpu(const AttentionInputs& in, const AttentionView& view,
                                               const at::Tensor& probabilities,
                                               const at::Tensor& dy, const AttentionWants& wants);

}  // namespace deq::ops
