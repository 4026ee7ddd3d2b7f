#include "deq/cells/transformer.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <cmath>

#include "deq/cells/dropout.h"

namespace deq {

using at::Tensor;

namespace {

Tensor layer_norm(const Tensor& x) { return at::layer_norm(x, {x.size(-1)}); }

/// x W^T + base, for x (B, T, in), W (out, in) and a base that is (out) or (B, T, out).
Tensor affine(const Tensor& x, const Tensor& weight, const Tensor& base) {
  const Tensor flat = x.reshape({-1, x.size(-1)});
  const Tensor flat_base = base.dim() == 1 ? base : base.reshape({-1, base.size(-1)});
  return at::addmm(flat_base, flat, weight.t()).view({x.size(0), x.size(1), weight.size(0)});
}

}  // namespace

Tensor sinusoids(int64_t first, int64_t count, const Tensor& frequency) {
  const Tensor distance = double(first) - at::arange(count, frequency.options());
  const Tensor angle = distance.unsqueeze(1) * frequency.unsqueeze(0);  // (count, F)
  return at::cat({angle.sin(), angle.cos()}, 1);
}

std::shared_ptr<Cell> Transformer::make() const { return std::make_shared<TransformerCell>(*this); }

TransformerCell::TransformerCell(const Transformer& options) : options_(options) {
  validate(options, "Transformer");
  const int64_t D = options.width, H = options.heads;
  DEQ_CHECK(D % H == 0, "Transformer.width = {}; expected a multiple of heads = {}", D, H);
  DEQ_CHECK(D % 2 == 0, "Transformer.width = {}; expected an even number (sines and cosines)", D);
  const bool normed = options.weight_norm;
  inject_ = register_module("inject", std::make_shared<Linear>(D, 3 * D, true, false));
  qkv_ = register_module("qkv", std::make_shared<Linear>(D, 3 * D, false, normed));
  positions_ = register_module("positions", std::make_shared<Linear>(D, D, false, normed));
  output_ = register_module("output", std::make_shared<Linear>(D, D, true, normed));
  inner_ = register_module("inner", std::make_shared<Linear>(D, options.inner, true, normed));
  outer_ = register_module("outer", std::make_shared<Linear>(options.inner, D, true, normed));
  content_bias_ = register_parameter("content_bias", torch::zeros({H, D / H}));
  position_bias_ = register_parameter("position_bias", torch::zeros({H, D / H}));
  const Tensor exponent = -torch::arange(0, D, 2) / double(D);
  frequency_ = register_buffer("frequency", at::pow(10000.0, exponent));
  initialise(0.02);
}

void TransformerCell::initialise(double std) {
  at::AutoGradMode no_tape(false);
  for (const auto& linear : {inject_, qkv_, positions_, output_, inner_, outer_})
    linear->initialise(std);
  content_bias_.normal_(0, std);
  position_bias_.normal_(0, std);
}

/// Everything of f that does not depend on z.
struct TransformerCell::Bound {
  NormPlace norm;
  ops::AttentionView view;
  ops::AttentionContext attention;
  Tensor injected;                   // (B, T, 3 D)
  Tensor qkv, output, inner, outer;  // weights
  Tensor output_bias, inner_bias, outer_bias;
  Tensor output_mask, inner_mask, outer_mask;  // (B, 1, .) or undefined

  Tensor operator()(const Tensor& z) const {
    const Tensor in = norm == NormPlace::Post ? z : layer_norm(z);
    const auto parts = affine(in, qkv, injected).chunk(3, 2);  // each (B, T, D)
    const Tensor seen = ops::relative_attention(parts[0], parts[1], parts[2], attention, view);
    const Tensor summed = z + masked(affine(seen, output, output_bias), output_mask);
    if (norm == NormPlace::Pre) return summed + feed_forward(layer_norm(summed));
    const Tensor y = layer_norm(summed);
    return norm == NormPlace::Post ? layer_norm(y + feed_forward(y)) : y + feed_forward(y);
  }
  Tensor feed_forward(const Tensor& y) const {
    const Tensor hidden = masked(affine(y, inner, inner_bias).relu(), inner_mask);
    return masked(affine(hidden, outer, outer_bias), outer_mask);
  }
};

ops::AttentionContext TransformerCell::bind_attention(const Tensor& x, const History& history,
                                                      const Tensor& qkv) {
  const int64_t B = x.size(0), T = x.size(1), D = options_.width, M = history.length();
  ops::AttentionContext context;
  if (M > 0) {
    // The history's injection uses the present weights; like the history itself it is held fixed.
    Tensor injected;
    {
      at::AutoGradMode no_tape(false);
      injected = affine(history.x, inject_->weight().narrow(0, D, 2 * D),
                        inject_->bias().narrow(0, D, 2 * D));
    }
    const Tensor z = options_.norm == NormPlace::Post ? history.z : layer_norm(history.z);
    const auto parts = affine(z, qkv.narrow(0, D, 2 * D), injected).chunk(2, 2);
    context.past_k = parts[0];
    context.past_v = parts[1];
  }
  const int64_t rows = ops::relative_rows(T, M, options_.causal);
  const Tensor positions = sinusoids(M + T - 1, rows, frequency_);
  const Tensor position_mask = dropout_mask({1, D}, options_.dropout.hidden, is_training(), x);
  context.r = at::matmul(masked(positions, position_mask), positions_->weight().t());  // (R, D)
  context.content_bias = content_bias_.reshape({D});
  context.position_bias = position_bias_.reshape({D});
  context.mask =
      dropout_mask({B, options_.heads, T, M + T}, options_.dropout.attention, is_training(), x);
  return context;
}

Map TransformerCell::bind(const Tensor& x, const History& history) {
  const int64_t B = x.size(0), D = options_.width;
  DEQ_CHECK(x.dim() == 3 && x.size(2) == D,
            "TransformerCell: x has shape [{}]; expected (batch, positions, {})",
            fmt::join(x.sizes(), ", "), D);
  DEQ_CHECK(!history.z.defined() || history.z.size(0) == B,
            "TransformerCell: history of batch {}; expected {}", history.z.size(0), B);
  const double share = options_.dropout.hidden;
  auto bound = std::make_shared<Bound>();
  bound->norm = options_.norm;
  bound->view = {options_.heads, options_.causal, options_.window, float_scores_};
  bound->qkv = qkv_->weight();
  bound->injected = affine(x, inject_->weight(), inject_->bias());
  bound->attention = bind_attention(x, history, bound->qkv);
  bound->output = output_->weight();
  bound->inner = inner_->weight();
  bound->outer = outer_->weight();
  bound->output_bias = output_->bias();
  bound->inner_bias = inner_->bias();
  bound->outer_bias = outer_->bias();
  bound->output_mask = dropout_mask({B, 1, D}, share, is_training(), x);
  bound->inner_mask = dropout_mask({B, 1, options_.inner}, share, is_training(), x);
  bound->outer_mask = dropout_mask({B, 1, D}, share, is_training(), x);
  return [bound](const Tensor& z) { return (*bound)(z); };
}

History TransformerCell::extend(const History& history, const Tensor& x, const Tensor& z,
                                int64_t length) const {
  at::AutoGradMode no_tape(false);
  const auto last = [&](const Tensor& old, const Tensor& fresh) {
    const Tensor all = old.defined() ? at::cat({old, fresh.detach()}, 1) : fresh.detach();
    const int64_t kept = std::min(length, all.size(1));
    return all.narrow(1, all.size(1) - kept, kept).contiguous();
  };
  if (length == 0) return {};
  return {last(history.z, z), last(history.x, x)};
}

}  // namespace deq
