#include "deq/ops/transformer_composed.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>

#include "deq/ops/relative_attention.h"

namespace deq::ops {

using at::Tensor;

namespace {

Tensor layer_norm(const Tensor& x) { return at::layer_norm(x, {x.size(-1)}); }

Tensor times(const Tensor& x, const Tensor& mask) { return mask.defined() ? x * mask : x; }

/// x (B, T, .) W^T + bias (.)
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return at::addmm(bias, x.reshape({-1, x.size(2)}), weight.t())
      .view({x.size(0), x.size(1), weight.size(0)});
}

/// x (H, B, T, d) + bias (D), contiguous.
Tensor shifted(const Tensor& x, const Tensor& bias) {
  const Tensor by_head = bias.view({x.size(0), 1, 1, x.size(3)});
  if (c10::GradMode::is_enabled()) return (x + by_head).contiguous();
  Tensor out = at::empty(x.sizes(), x.options());
  return at::add_out(out, x, by_head);
}

/// r (R, D) as (H, d, R + 1), a row of zeros at its end.
Tensor by_head(const Tensor& r, int64_t heads) {
  return at::constant_pad_nd(r, {0, 0, 0, 1})
      .view({r.size(0) + 1, heads, r.size(1) / heads})
      .permute({1, 2, 0});
}

/// (B, M, D) -> (H, B, M, d)
Tensor heads_first(const Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).permute({2, 0, 1, 3});
}

}  // namespace

ComposedBlock::ComposedBlock(const BlockContext& c, int64_t T) {
  c10::NoGradGuard no_tape;
  const AttentionContext& a = c.attention;
  const int64_t M = a.past_k.defined() ? a.past_k.size(1) : 0;
  hidden_ = hidden_keys(T, M, c.view, a.hidden, a.r);
  if (hidden_.dim() == 4) hidden_ = hidden_.squeeze(1);
  if (!c.view.causal && c.view.window == 0 && a.hidden.empty()) hidden_ = Tensor();
  distances_ = by_head(a.r, c.view.heads).contiguous();
}

Tensor ComposedBlock::attend(const BlockContext& c, const Tensor& qkv) const {
  const AttentionContext& a = c.attention;
  const int64_t B = qkv.size(0), T = qkv.size(1), D = qkv.size(2) / 3, H = c.view.heads, d = D / H;
  const auto parts = qkv.view({B, T, 3, H, d}).permute({2, 3, 0, 1, 4}).unbind(0);  // (H, B, T, d)
  const bool past = a.past_k.defined() && a.past_k.size(1) > 0;
  const auto with_past = [&](const Tensor& before, const Tensor& now) {
    return past ? at::cat({heads_first(before, H), now}, 2) : now.contiguous();
  };
  const Tensor keys = with_past(a.past_k, parts[1]), values = with_past(a.past_v, parts[2]);
  const int64_t K = keys.size(2), rows = a.r.size(0);
  const Tensor distances = c10::GradMode::is_enabled() ? by_head(a.r, H) : distances_;
  const Tensor far = at::bmm(shifted(parts[0], a.position_bias).view({H, B * T, d}), distances);
  // Query i meets key j at row T - 1 - i + j of r. In rows one longer, that is at T - 1 + i R + j
  // of them all, one behind the other.
  const Tensor position = far.view({H, B, T * (rows + 1)})
                              .narrow(2, T - 1, T * rows)
                              .view({H * B, T, rows})
                              .narrow(2, 0, K);
  const double scale = 1 / std::sqrt(double(d));
  const Tensor near = shifted(parts[0], a.content_bias).view({H * B, T, d});
  Tensor score = at::baddbmm(position, near, keys.view({H * B, K, d}).transpose(1, 2), scale, scale)
                     .view({H, B, T, K});
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  if (hidden_.defined()) {
    score = c10::GradMode::is_enabled() ? score.masked_fill(hidden_, kNever)
                                        : score.masked_fill_(hidden_, kNever);
  }
  Tensor probability = at::softmax(score, 3);
  if (a.mask.defined()) probability = probability * a.mask.transpose(0, 1);
  return at::bmm(probability.view({H * B, T, K}), values.view({H * B, K, d}))
      .view({H, B, T, d})
      .permute({1, 2, 0, 3})
      .reshape({B, T, D});
}

Tensor ComposedBlock::operator()(const BlockContext& c, const Tensor& z) const {
  const BlockWeights& w = c.weights;
  const int64_t B = z.size(0), T = z.size(1), D = z.size(2);
  const Tensor x = (c.norm == NormPlace::Post ? z : layer_norm(z)).reshape({B * T, D});
  const Tensor qkv = c.injected.defined() ? at::addmm(c.injected.view({B * T, 3 * D}), x, w.qkv.t())
                                          : at::mm(x, w.qkv.t());
  const Tensor seen = attend(c, qkv.view({B, T, 3 * D}));
  const Tensor y = z + times(linear(seen, w.output, w.output_bias), c.output_mask);
  const Tensor normed = layer_norm(y);
  const Tensor hidden = times(linear(normed, w.inner, w.inner_bias).relu(), c.inner_mask);
  const Tensor fed = times(linear(hidden, w.outer, w.outer_bias), c.outer_mask);
  if (c.norm == NormPlace::Pre) return y + fed;
  return c.norm == NormPlace::Post ? layer_norm(normed + fed) : normed + fed;
}

}  // namespace deq::ops
