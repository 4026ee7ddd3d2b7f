#include "deq/ops/relative_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "deq/base/error.h"
#include "deq/ops/relative_attention_cpu.h"

namespace deq::ops {

using at::Tensor;

namespace {

void check_shape(const char* name, const Tensor& t, at::IntArrayRef expected) {
  DEQ_CHECK(t.defined(), "relative_attention: {} is undefined; expected [{}]", name,
            fmt::join(expected, ", "));
  DEQ_CHECK(t.sizes() == expected, "relative_attention: {} is [{}]; expected [{}]", name,
            fmt::join(t.sizes(), ", "), fmt::join(expected, ", "));
}

/// The kernels read what these say is there.
void check_shapes(const Tensor& q, const Tensor& k, const Tensor& v,
                  const AttentionContext& context, const AttentionView& view) {
  DEQ_CHECK(q.defined() && q.dim() == 3,
            "relative_attention: q has {} dimensions; expected (batch, positions, features)",
            q.defined() ? q.dim() : 0);
  const int64_t B = q.size(0), T = q.size(1), D = q.size(2), H = view.heads;
  check_shape("k", k, q.sizes());
  check_shape("v", v, q.sizes());
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
  check_shape("r", context.r, {std::max<int64_t>(0, relative_rows(T, M, view.causal)), D});
  check_shape("content_bias", context.content_bias, {D});
  check_shape("position_bias", context.position_bias, {D});
  if (context.mask.defined()) check_shape("mask", context.mask, {B, H, T, M + T});
}

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

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A node takes no undefined tensors: what is absent goes in, and is saved, without elements.
Tensor or_empty(const Tensor& t, const Tensor& like) {
  return t.defined() ? t : at::empty({0}, like.options().requires_grad(false));
}
Tensor or_none(const Tensor& t) { return t.numel() > 0 ? t : Tensor(); }

AttentionInputs inputs_of(const variable_list& t) {
  return {t[0], t[1], t[2], or_none(t[3]), or_none(t[4]), t[5], t[6], t[7], or_none(t[8])};
}

AttentionContext context_of(const variable_list& t) {
  return {or_none(t[3]), or_none(t[4]), t[5], t[6], t[7], or_none(t[8])};
}

/// The CPU kernels as a node of the graph. Its backward is theirs; where that is to be
/// differentiated again (create_graph), the reference's.
struct AttentionNode : torch::autograd::Function<AttentionNode> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& past_k, const Tensor& past_v, const Tensor& r,
                        const Tensor& a, const Tensor& b, const Tensor& mask, int64_t heads,
                        bool causal, int64_t window) {
    const AttentionView view{heads, causal, window};
    Tensor probabilities;
    const variable_list inputs{q, k, v, past_k, past_v, r, a, b, mask};
    const Tensor y = attention_forward_cpu(inputs_of(inputs), view, &probabilities);
    context->save_for_backward({q, k, v, past_k, past_v, r, a, b, mask, probabilities});
    context->saved_data["heads"] = heads;
    context->saved_data["causal"] = causal;
    context->saved_data["window"] = window;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const AttentionView view{context->saved_data["heads"].toInt(),
                             context->saved_data["causal"].toBool(),
                             context->saved_data["window"].toInt()};
    variable_list result(kAttentionInputs + 3);
    if (!gradients[0].defined()) return result;
    if (at::GradMode::is_enabled()) return differentiable_backward(saved, view, gradients[0]);
    AttentionWants wants;
    wants.rest = context->needs_input_grad({{3, 8}});
    const auto found =
        attention_backward_cpu(inputs_of(saved), view, saved[9], gradients[0], wants);
    std::copy(found.begin(), found.end(), result.begin());
    return result;
  }

  static variable_list differentiable_backward(const variable_list& saved,
                                               const AttentionView& view, const Tensor& dy) {
    const Tensor y =
        relative_attention_reference(saved[0], saved[1], saved[2], context_of(saved), view);
    variable_list inputs;
    std::vector<size_t> places;
    for (size_t i = 0; i < 8; ++i) {
      if (saved[i].numel() == 0 || !saved[i].requires_grad()) continue;
      inputs.push_back(saved[i]);
      places.push_back(i);
    }
    const variable_list found =
        torch::autograd::grad({y}, inputs, {dy}, /*retain_graph=*/true, /*create_graph=*/true,
                              /*allow_unused=*/true);
    variable_list result(kAttentionInputs + 3);
    for (size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
    return result;
  }
};

}  // namespace

Tensor relative_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                          const AttentionContext& context, const AttentionView& view) {
  check_shapes(q, k, v, context, view);
  const bool past = context.past_k.defined() && context.past_k.size(1) > 0;
  const Tensor none;
  const AttentionInputs in{with_rows(q),
                           with_rows(k),
                           with_rows(v),
                           past ? with_rows(context.past_k) : none,
                           past ? with_rows(context.past_v) : none,
                           with_rows(context.r),
                           context.content_bias.contiguous(),
                           context.position_bias.contiguous(),
                           context.mask.defined() ? context.mask.contiguous() : none};
  if (view.float_scores || !attention_on_cpu(in))
    return relative_attention_reference(q, k, v, context, view);
  if (!at::GradMode::is_enabled()) return attention_forward_cpu(in, view, nullptr);
  return AttentionNode::apply(in.q, in.k, in.v, or_empty(in.past_k, q), or_empty(in.past_v, q),
                              in.r, in.a, in.b, or_empty(in.mask, q), view.heads, view.causal,
                              view.window);
}

}  // namespace deq::ops
