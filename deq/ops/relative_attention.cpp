#include "deq/ops/relative_attention.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "deq/base/error.h"
#include "deq/ops/relative_attention_cpu.h"
#include "deq/ops/twice.h"

namespace deq::ops {

using at::Tensor;

namespace {

void check_shape(const char* name, const Tensor& t, at::IntArrayRef expected) {
  DEQ_CHECK(t.defined(), "relative_attention: {} is undefined; expected [{}]", name,
            fmt::join(expected, ", "));
  DEQ_CHECK(t.sizes() == expected, "relative_attention: {} is [{}]; expected [{}]", name,
            fmt::join(t.sizes(), ", "), fmt::join(expected, ", "));
}

void check_shapes(const Tensor& q, const Tensor& k, const Tensor& v,
                  const AttentionContext& context, const AttentionView& view) {
  DEQ_CHECK(q.defined() && q.dim() == 3,
            "relative_attention: q has {} dimensions; expected (batch, positions, features)",
            q.defined() ? q.dim() : 0);
  check_shape("k", k, q.sizes());
  check_shape("v", v, q.sizes());
  check_attention(q.size(0), q.size(1), q.size(2), context, view);
}

/// (B, N, D) -> (B, H, N, D / H)
Tensor split_heads(const Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

}  // namespace

Tensor hidden_keys(int64_t T, int64_t M, const AttentionView& view,
                   const std::vector<int64_t>& none, const Tensor& like) {
  const auto options = like.options().dtype(at::kLong).requires_grad(false);
  const Tensor distance =
      M + at::arange(T, options).unsqueeze(1) - at::arange(M + T, options).unsqueeze(0);
  Tensor hidden = view.causal ? distance < 0 : at::zeros_like(distance, at::kBool);
  if (view.window > 0) hidden = hidden.logical_or(distance.abs() >= view.window);
  if (none.empty()) return hidden;
  const Tensor first = at::tensor(none, at::kLong).to(like.device()).view({-1, 1, 1, 1});
  return hidden.logical_or(at::arange(M + T, options) < first);
}

void check_attention(int64_t B, int64_t T, int64_t D, const AttentionContext& context,
                     const AttentionView& view) {
  const int64_t H = view.heads;
  DEQ_CHECK(H >= 1 && D % H == 0,
            "relative_attention: {} features in {} heads; expected a multiple", D, H);
  DEQ_CHECK(view.window >= 0, "relative_attention: window = {}; expected >= 0", view.window);
  DEQ_CHECK(context.past_k.defined() == context.past_v.defined(),
            "relative_attention: past_{} alone; expected both or neither",
            context.past_k.defined() ? 'k' : 'v');
  int64_t M = 0;
  if (context.past_k.defined()) {
    M = context.past_k.dim() == 3 ? context.past_k.size(1) : 0;
    check_shape("past_k", context.past_k, {B, M, D});
    check_shape("past_v", context.past_v, {B, M, D});
  }
  DEQ_CHECK(
      view.columns == 0 || (T % view.columns == 0 && M == 0 && !view.causal && view.window == 0),
      "relative_attention: {} places in rows of {}, {} of a past, causal = {}, window = {}; "
      "expected whole rows, and none of these of a grid",
      T, view.columns, M, view.causal, view.window);
  check_shape("r", context.r, {std::max<int64_t>(0, relative_rows(T, M, view)), D});
  check_shape("content_bias", context.content_bias, {D});
  check_shape("position_bias", context.position_bias, {D});
  if (context.mask.defined()) check_shape("mask", context.mask, {B, H, T, M + T});
  DEQ_CHECK(context.hidden.empty() || int64_t(context.hidden.size()) == B,
            "relative_attention: hidden of {} samples; expected {}", context.hidden.size(), B);
  for (const int64_t hidden : context.hidden) {
    DEQ_CHECK(hidden >= 0 && hidden <= M, "relative_attention: hidden = {}; expected 0 to {}",
              hidden, M);
  }
}

int64_t relative_rows(int64_t positions, int64_t past, bool causal) {
  return causal ? past + positions : past + 2 * positions - 1;
}

int64_t relative_rows(int64_t positions, int64_t past, const AttentionView& view) {
  if (view.columns == 0) return relative_rows(positions, past, view.causal);
  return 2 * (positions / view.columns) - 1 + 2 * view.columns - 1;
}

namespace {

/// What (q + b) . r is of query i and key j, from that of every row of r, (B, H, T, R).
Tensor by_pair(const Tensor& by_distance, int64_t K, const AttentionView& view) {
  const int64_t T = by_distance.size(2), R = by_distance.size(3);
  const auto longs = by_distance.options().dtype(at::kLong).requires_grad(false);
  const auto chosen = [&](const Tensor& row) {
    return by_distance.gather(3, row.expand({by_distance.size(0), by_distance.size(1), T, K}));
  };
  const Tensor query = at::arange(T, longs).unsqueeze(1), key = at::arange(K, longs).unsqueeze(0);
  // Query i meets key j at distance M + i - j, which is row K - 1 - (M + i - j) = T - 1 - i + j of
  // r.
  if (view.columns == 0) return chosen((T - 1 - query + key).clamp_max(R - 1));
  const int64_t W = view.columns, H = T / W;
  const auto row_of = [W](const Tensor& place) { return at::floor_divide(place, W); };
  const Tensor rows = H - 1 - row_of(query) + row_of(key);
  const Tensor columns = 2 * H - 1 + W - 1 - query.remainder(W) + key.remainder(W);
  return chosen(rows) + chosen(columns);
}

}  // namespace

Tensor relative_attention_reference(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionContext& context, const AttentionView& view) {
  check_shapes(q, k, v, context, view);
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
  Tensor score = (content + by_pair(by_distance, K, view)) * (1 / std::sqrt(double(d)));
  const Tensor hidden = hidden_keys(T, M, view, context.hidden, q);
  if (view.float_scores && hidden.any().item<bool>())
    score = score.to(at::kFloat).to(q.scalar_type());
  score = score.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  Tensor probability = at::softmax(score, 3);
  if (context.mask.defined()) probability = probability * context.mask;
  return at::matmul(probability, values).transpose(1, 2).reshape({q.size(0), T, D});
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A node takes no undefined tensors: what is absent goes in, and is saved, without elements.
Tensor or_empty(const Tensor& t, const Tensor& like) {
  return t.defined() ? t : at::empty({0}, like.options().requires_grad(false));
}
Tensor or_none(const Tensor& t) { return t.numel() > 0 ? t : Tensor(); }

/// What the kernels read, on its way from forward to backward.
struct Held : torch::CustomClassHolder {
  std::shared_ptr<const PackedAttention> packed;
};
constexpr const char* kPacked = "packed";
constexpr size_t kInputs = 9;  // q, k, v, past_k, past_v, r, a, b, mask

/// The CPU kernels as a node of the graph. Its backward is theirs; where that is to be
/// differentiated again (create_graph), the reference's.
struct AttentionNode : torch::autograd::Function<AttentionNode> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& past_k, const Tensor& past_v, const Tensor& r,
                        const Tensor& a, const Tensor& b, const Tensor& mask,
                        c10::intrusive_ptr<Held> held) {
    const auto options = q.options().requires_grad(false);
    const Tensor y = at::empty(q.sizes(), options);
    const Tensor log_sum = at::empty({q.size(0), held->packed->view().heads, q.size(1)}, options);
    attention_forward_cpu(q, k, v, *held->packed, OpenRows(q.size(0), q.size(1)), y, log_sum);
    context->save_for_backward({q, k, v, past_k, past_v, r, a, b, mask, y, log_sum});
    context->saved_data[kPacked] = c10::IValue::make_capsule(std::move(held));
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list result(kInputs + 1);
    if (!gradients[0].defined()) return result;
    const variable_list saved = context->get_saved_variables();
    const auto held =
        c10::static_intrusive_pointer_cast<Held>(context->saved_data[kPacked].toCapsule());
    if (c10::GradMode::is_enabled())
      return differentiable_backward(saved, *held->packed, gradients[0]);
    const bool all = context->needs_input_grad({{3, 8}});
    const AttentionGradients found = attention_backward_cpu(
        saved[0], saved[1], saved[2], *held->packed, saved[9], saved[10], gradients[0], all);
    const auto parts = found.qkv.chunk(3, 2);
    std::copy(parts.begin(), parts.end(), result.begin());
    result[3] = found.past_k;
    result[4] = found.past_v;
    result[5] = found.r;
    result[6] = found.content_bias;
    result[7] = found.position_bias;
    return result;
  }

  static variable_list differentiable_backward(const variable_list& saved,
                                               const PackedAttention& packed, const Tensor& dy) {
    const auto f = [&](const variable_list& x) {
      const AttentionContext context{or_none(x[3]), or_none(x[4]),     x[5],           x[6],
                                     x[7],          or_none(saved[8]), packed.hidden()};
      return relative_attention_reference(x[0], x[1], x[2], context, packed.view());
    };
    variable_list result = taped_gradients(f, {saved.begin(), saved.begin() + 8}, dy);
    result.resize(kInputs + 1);
    return result;
  }
};

}  // namespace

Tensor relative_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                          const AttentionContext& context, const AttentionView& view) {
  check_shapes(q, k, v, context, view);
  if (view.float_scores || view.columns > 0 || !attention_on_cpu(q))
    return relative_attention_reference(q, k, v, context, view);
  const auto packed = std::make_shared<const PackedAttention>(context, view);
  const Tensor rows_q = with_rows(q), rows_k = with_rows(k), rows_v = with_rows(v);
  if (!c10::GradMode::is_enabled()) {
    Tensor y = at::empty(q.sizes(), q.options().requires_grad(false));
    attention_forward_cpu(rows_q, rows_k, rows_v, *packed, OpenRows(q.size(0), q.size(1)), y, {});
    return y;
  }
  const bool past = packed->past() > 0;
  auto held = c10::make_intrusive<Held>();
  held->packed = packed;
  return AttentionNode::apply(rows_q, rows_k, rows_v, or_empty(past ? context.past_k : Tensor(), q),
                              or_empty(past ? context.past_v : Tensor(), q), context.r,
                              context.content_bias, context.position_bias,
                              or_empty(context.mask, q), std::move(held));
}

}  // namespace deq::ops
