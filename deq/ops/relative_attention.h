// Multi-head attention with relative positions (Dai et al. 2019, Transformer-XL), the
// DEQ-Transformer's.
//
//   score_ij = ((q_i + a) . k_j + (q_i + b) . r_{M + i - j}) / sqrt(D / H),   y_i = sum_j
//   softmax_j(score_ij) v_j
//
// H heads, T queries, M past keys, K = M + T keys in all: key j < M is past, key M + t is position
// t.
//
// Of a grid the places stand row by row, and r_{i - j} is r_{rows between} + r'_{columns between}.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace deq::ops {

/// Which keys a query sees: of query i, key j is M + i - j positions back.
struct AttentionView {
  int64_t heads = 1;
  bool causal = true;  ///< no key that lies ahead
  int64_t window = 0;  ///< only keys less than `window` positions away; 0: all
  /// Round the scores to float where any key is hidden, as the published code does; no change in
  /// float.
  bool float_scores = false;
  int64_t columns = 0;  ///< of a grid, which has no past, no order and no window; 0: a sequence
};

/// What does not depend on the state, bound once per solve. D is divisible by H.
struct AttentionContext {
  at::Tensor past_k, past_v;  ///< (B, M, D), or undefined: no past
  at::Tensor r;  ///< (R, D) projected positions: row i is distance K - 1 - i; R as relative_rows().
                 ///< Of a grid (H, W): distances H - 1 .. 1 - H of rows, W - 1 .. 1 - W of columns
  at::Tensor content_bias;   ///< (D) a
  at::Tensor position_bias;  ///< (D) b
  at::Tensor mask;           ///< (B, H, T, K) dropout mask on the probabilities, or undefined
  /// Of each sample, how many of the first past keys are none: a past shorter than M; empty: all 0
  std::vector<int64_t> hidden = {};
};

/// Rows of r: K for causal attention (distances K - 1 .. 0), K + T - 1 otherwise (down to -(T -
/// 1)).
int64_t relative_rows(int64_t positions, int64_t past, bool causal);
/// The same of any view; of a grid (H, W) 2 H - 1 + 2 W - 1.
int64_t relative_rows(int64_t positions, int64_t past, const AttentionView& view);

/// Which scores are not there, bool, (T, K) or with `hidden` (B, 1, T, K); on the device of `like`.
at::Tensor hidden_keys(int64_t positions, int64_t past, const AttentionView& view,
                       const std::vector<int64_t>& hidden, const at::Tensor& like);

/// Throws deq::Error unless these fit queries (B, T, D).
void check_attention(int64_t B, int64_t T, int64_t D, const AttentionContext& context,
                     const AttentionView& view);

/// q, k, v (B, T, D) -> (B, T, D), of any strides. Differentiable, twice as well. Throws deq::Error
/// for shapes that do not fit. A hidden key has no part in a result as long as its value is finite:
/// its probability is exactly 0, and 0 times infinity is NaN.
at::Tensor relative_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const AttentionContext& context, const AttentionView& view);

/// The plain reference, from LibTorch's operators.
at::Tensor relative_attention_reference(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const AttentionContext& context,
                                        const AttentionView& view);

}  // namespace deq::ops
