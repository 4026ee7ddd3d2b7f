#include "deq/ops/relative_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace deq::ops {

using at::Tensor;

namespace {

/// (B, N, D) -> (B, H, N, D / H)
Tensor split_heads(const Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

/// Which entries of the (T, K) score matrix are hidden.
Tensor hidden_keys(int64_t T, int64_t M, const AttentionView& view, const Tensor& like) {
  const auto options = like.options().dtype(at::kLong).requires_grad(false);
  const Tensor distance =
      M + at::arange(T, options).unsqueeze(1) - at::arange(M + T, options).unsqueeze(0);
  Tensor hidden = view.causal ? distance < 0 : at::zeros_like(distance, at::kBool);
  if (view.window > 0) hidden = hidden.logical_or(distance.abs() >= view.window);
  return hidden;
}

}  // namespace

int64_t relative_rows(int64_t positions, int64_t past, bool causal) {
  return causal ? past + positions : past + 2 * positions - 1;
}

Tensor relative_attention_reference(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionContext& context, const AttentionView& view) {
  const int64_t H = view.heads, T = q.size(1), D = q.size(2), d = D / H;
  const bool past = context.past_k.defined() && context.past_k.size(1) > 0;
  const int64_t M = past ? context.past_k.size(1) : 0, K = M + T;
  const Tensor keys =
      split_heads(past ? at::cat({context.past_k, k}, 1) : k.contiguous(), H);  // (B, H, K, d)
  const Tensor values =
      split_heads(past ? at::cat({context.past_v, v}, 1) : v.contiguous(), H);  // (B, H, K, d)
  const Tensor positions = context.r.view({-1, H, d}).transpose(0, 1);          // (H, R, d)
  const Tensor content = at::matmul(split_heads(q + context.content_bias, H), keys.transpose(2, 3));
  const Tensor by_distance = at::matmul(split_heads(q + context.position_bias, H),
                                        positions.transpose(1, 2));  // (B, H, T, R)
  // Query i meets key j at distance M + i - j, which is row K - 1 - (M + i - j) = T - 1 - i + j of
  // r.
  const auto longs = q.options().dtype(at::kLong).requires_grad(false);
  const Tensor row = (T - 1 - at::arange(T, longs).unsqueeze(1) + at::arange(K, longs).unsqueeze(0))
                         .clamp_max(positions.size(1) - 1);
  const Tensor position = by_distance.gather(3, row.expand({q.size(0), H, T, K}));
  Tensor score = (content + position) * (1 / std::sqrt(double(d)));
  const Tensor hidden = hidden_keys(T, M, view, q);
  if (view.float_scores && hidden.any().item<bool>())
    score = score.to(at::kFloat).to(q.scalar_type());
  score = score.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  Tensor probability = at::softmax(score, 3);
  if (context.mask.defined()) probability = probability * context.mask;
  return at::matmul(probability, values).transpose(1, 2).reshape({q.size(0), T, D});
}

Tensor relative_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                          const AttentionContext& context, const AttentionView& view) {
  return relative_attention_reference(q, k, v, context, view);
}

}  // namespace deq::ops
