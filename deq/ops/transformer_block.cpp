#include "deq/ops/transformer_block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "deq/base/error.h"
#include "deq/ops/packed.h"
#include "deq/ops/relative_attention_cpu.h"

namespace deq::ops {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The block's weights as the kernels read them; W for backward, made when that is first asked for.
class PackedBlock {
 public:
  explicit PackedBlock(const BlockWeights& w)
      : weights_{w.qkv.detach(), w.output.detach(), w.inner.detach(), w.outer.detach()} {
    for (const Tensor& weight : weights_) forward_.push_back(packed_weight(weight, false));
  }

  template <class T>
  BlockPanels<T> panels(bool backward) const {
    if (backward) {
      std::call_once(once_, [this] {
        for (const Tensor& weight : weights_) backward_.push_back(packed_weight(weight, true));
      });
    }
    const auto& from = backward ? backward_ : forward_;
    return {from[0].data_ptr<T>(), from[1].data_ptr<T>(), from[2].data_ptr<T>(),
            from[3].data_ptr<T>()};
  }

 private:
  std::vector<Tensor> weights_, forward_;
  mutable std::once_flag once_;
  mutable std::vector<Tensor> backward_;
};

BlockWeights block_weights(BlockWeights weights) {
  const Tensor& w = weights.qkv;
  if (attention_on_cpu(w)) weights.packed = std::make_shared<const PackedBlock>(weights);
  return weights;
}

namespace {

Tensor layer_norm(const Tensor& x) { return at::layer_norm(x, {x.size(-1)}); }

Tensor times(const Tensor& x, const Tensor& mask) { return mask.defined() ? x * mask : x; }

/// x W^T + base.
Tensor affine(const Tensor& x, const Tensor& weight, const Tensor& base) {
  const Tensor y = at::matmul(x, weight.t());
  return base.defined() ? y + base : y;
}

void check_shape(const char* name, const Tensor& t, at::IntArrayRef expected) {
  DEQ_CHECK(t.defined() && t.sizes() == expected, "transformer_block: {} is [{}]; expected [{}]",
            name, t.defined() ? fmt::format("{}", fmt::join(t.sizes(), ", ")) : "undefined",
            fmt::join(expected, ", "));
}

/// What does not depend on z.
void check_context(const BlockContext& c) {
  const BlockWeights& w = c.weights;
  DEQ_CHECK(w.output.defined() && w.output.dim() == 2 && w.inner.defined() && w.inner.dim() == 2,
            "transformer_block: output or inner is no matrix; expected (D, D) and (I, D)");
  const int64_t D = w.output.size(0), I = w.inner.size(0);
  check_shape("qkv", w.qkv, {3 * D, D});
  check_shape("output", w.output, {D, D});
  check_shape("output_bias", w.output_bias, {D});
  check_shape("inner", w.inner, {I, D});
  check_shape("inner_bias", w.inner_bias, {I});
  check_shape("outer", w.outer, {D, I});
  check_shape("outer_bias", w.outer_bias, {D});
}

void check_state(const Tensor& z, const BlockContext& c) {
  const int64_t D = c.weights.output.size(0), I = c.weights.inner.size(0);
  DEQ_CHECK(z.defined() && z.dim() == 3 && z.size(2) == D,
            "transformer_block: z is [{}]; expected (batch, positions, {})",
            z.defined() ? fmt::format("{}", fmt::join(z.sizes(), ", ")) : "undefined", D);
  DEQ_CHECK(z.scalar_type() == c.weights.qkv.scalar_type(),
            "transformer_block: z is {} and the weights {}; expected one type",
            c10::toString(z.scalar_type()), c10::toString(c.weights.qkv.scalar_type()));
  const int64_t B = z.size(0), T = z.size(1);
  if (c.injected.defined()) check_shape("injected", c.injected, {B, T, 3 * D});
  if (c.output_mask.defined()) check_shape("output_mask", c.output_mask, {B, 1, D});
  if (c.inner_mask.defined()) check_shape("inner_mask", c.inner_mask, {B, 1, I});
  if (c.outer_mask.defined()) check_shape("outer_mask", c.outer_mask, {B, 1, D});
}

/// What one evaluation keeps for its backward.
struct Kept {
  Tensor z, qkv, seen, log_sum, f, normed, hidden, spread;
};
constexpr size_t kKept = 8;

template <class T>
const T* data(const Tensor& t) {
  return t.defined() ? t.data_ptr<T>() : nullptr;
}

template <class T>
BlockRows<T> rows_of(const BlockContext& c, const Kept& k, bool backward) {
  BlockRows<T> rows;
  rows.positions = k.z.size(1);
  rows.width = k.z.size(2);
  rows.inner = c.weights.inner.size(0);
  rows.norm = c.norm;
  rows.weights = c.weights.packed->panels<T>(backward);
  rows.output_bias = data<T>(c.weights.output_bias);
  rows.inner_bias = data<T>(c.weights.inner_bias);
  rows.outer_bias = data<T>(c.weights.outer_bias);
  rows.output_mask = data<T>(c.output_mask);
  rows.inner_mask = data<T>(c.inner_mask);
  rows.outer_mask = data<T>(c.outer_mask);
  rows.z = data<T>(k.z);
  rows.injected = data<T>(c.injected);
  rows.qkv = k.qkv.data_ptr<T>();
  rows.seen = k.seen.data_ptr<T>();
  rows.f = k.f.data_ptr<T>();
  rows.normed = k.normed.defined() ? k.normed.data_ptr<T>() : nullptr;
  rows.hidden = k.hidden.defined() ? k.hidden.data_ptr<T>() : nullptr;
  rows.spread = k.spread.defined() ? k.spread.data_ptr<T>() : nullptr;
  return rows;
}

/// Runs f(begin, end, scratch) over blocks of rows that stay in the second-level cache.
template <class T, class F>
void for_rows(const Tensor& z, int64_t inner, const F& f) {
  const int64_t rows = z.size(0) * z.size(1), threads = at::get_num_threads();
  const int64_t share = (rows + threads - 1) / threads;
  const int64_t block = std::min<int64_t>(48, (share + 5) / 6 * 6);
  at::parallel_for(0, (rows + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    const auto scratch =
        std::make_unique_for_overwrite<T[]>(size_t(block_scratch(block, z.size(2), inner)));
    for (int64_t i = begin; i < end; ++i)
      f(i * block, std::min(rows, (i + 1) * block), scratch.get());
  });
}

std::vector<Tensor> heads_of(const Tensor& qkv) { return qkv.chunk(3, 2); }

template <class T>
void forward(const BlockContext& c, const PackedAttention& attention, Kept& k, bool taped) {
  const int64_t B = k.z.size(0), N = k.z.size(1), D = k.z.size(2), I = c.weights.inner.size(0);
  const auto options = k.z.options().requires_grad(false);
  k.qkv = at::empty({B, N, 3 * D}, options);
  k.f = at::empty({B, N, D}, options);
  k.seen = k.f;  // until it is known
  BlockRows<T> rows = rows_of<T>(c, k, false);
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows(rows, begin, end, scratch);
  });
  const auto parts = heads_of(k.qkv);
  k.seen =
      attention_forward_cpu(parts[0], parts[1], parts[2], attention, taped ? &k.log_sum : nullptr);
  if (taped) {
    k.normed = at::empty({B, N, D}, options);
    k.hidden = at::empty({B, N, I}, options);
    k.spread = at::empty({B, N, 2}, options);
  }
  rows = rows_of<T>(c, k, false);
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    feed_rows(rows, begin, end, scratch);
  });
}

void forward(const BlockContext& c, const PackedAttention& attention, Kept& k, bool taped) {
  if (k.z.scalar_type() == at::kFloat) {
    forward<float>(c, attention, k, taped);
  } else {
    forward<double>(c, attention, k, taped);
  }
}

/// Gradients of z and, with `all`, of everything else that f depends on.
struct Gradients {
  Tensor z, injected, qkv, output, output_bias, inner, inner_bias, outer, outer_bias;
  AttentionGradients attention;
};

Tensor flat(const Tensor& t) { return t.reshape({-1, t.size(-1)}); }

template <class T>
Gradients backward(const BlockContext& c, const PackedAttention& attention, const Kept& k,
                   const Tensor& df, bool all) {
  const auto options = df.options().requires_grad(false);
  const int64_t I = c.weights.inner.size(0);
  Gradients found;
  found.z = at::empty(k.z.sizes(), options);
  const Tensor seen = at::empty(k.z.sizes(), options);
  Tensor output, inner, outer;
  BlockGradients<T> to;
  to.df = data<T>(df);
  to.seen = seen.data_ptr<T>();
  to.z = found.z.data_ptr<T>();
  if (all) {
    output = at::empty(k.z.sizes(), options);
    inner = at::empty(k.hidden.sizes(), options);
    outer = at::empty(k.z.sizes(), options);
    to.output = output.data_ptr<T>();
    to.inner = inner.data_ptr<T>();
    to.outer = outer.data_ptr<T>();
  }
  const BlockRows<T> rows = rows_of<T>(c, k, true);
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    feed_rows_backward(rows, to, begin, end, scratch);
  });
  const auto parts = heads_of(k.qkv);
  found.attention =
      attention_backward_cpu(parts[0], parts[1], parts[2], attention, k.seen, k.log_sum, seen, all);
  found.injected = found.attention.qkv;
  to.qkv = found.injected.data_ptr<T>();
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows_backward(rows, to, begin, end, scratch);
  });
  if (!all) return found;
  const Tensor x = c.norm == NormPlace::Post ? k.z : layer_norm(k.z);
  found.qkv = at::mm(flat(found.injected).t(), flat(x));
  found.output = at::mm(flat(output).t(), flat(k.seen));
  found.output_bias = flat(output).sum(0);
  found.inner = at::mm(flat(inner).t(), flat(k.normed));
  found.inner_bias = flat(inner).sum(0);
  found.outer = at::mm(flat(outer).t(), flat(k.hidden));
  found.outer_bias = flat(outer).sum(0);
  return found;
}

Gradients backward(const BlockContext& c, const PackedAttention& attention, const Kept& k,
                   const Tensor& df, bool all) {
  c10::NoGradGuard no_tape;
  return df.scalar_type() == at::kFloat ? backward<float>(c, attention, k, df, all)
                                        : backward<double>(c, attention, k, df, all);
}

/// What an evaluation needs, on its way from forward to backward.
struct Held : torch::CustomClassHolder {
  std::shared_ptr<const BlockContext> context;
  std::shared_ptr<const PackedAttention> attention;
};
constexpr const char* kHeld = "held";

/// What f depends on besides z, in the order of the node's inputs.
variable_list inputs_of(const BlockContext& c) {
  const auto or_empty = [&](const Tensor& t) {
    return t.defined() ? t : at::empty({0}, c.weights.qkv.options().requires_grad(false));
  };
  const BlockWeights& w = c.weights;
  const AttentionContext& a = c.attention;
  return {or_empty(c.injected),
          w.qkv,
          w.output,
          w.output_bias,
          w.inner,
          w.inner_bias,
          w.outer,
          w.outer_bias,
          or_empty(a.past_k),
          or_empty(a.past_v),
          a.r,
          a.content_bias,
          a.position_bias};
}
constexpr size_t kInputs = 14;  // with z

struct BlockNode : torch::autograd::Function<BlockNode> {
  static Tensor forward(AutogradContext* context, const Tensor& z, at::TensorList /*others*/,
                        c10::intrusive_ptr<Held> held) {
    Kept k{.z = z};
    ops::forward(*held->context, *held->attention, k, true);
    context->save_for_backward({k.z, k.qkv, k.seen, k.log_sum, k.f, k.normed, k.hidden, k.spread});
    context->saved_data[kHeld] = c10::IValue::make_capsule(std::move(held));
    return k.f;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list result(kInputs + 1);
    if (!gradients[0].defined()) return result;
    const variable_list saved = context->get_saved_variables();
    const auto held =
        c10::static_intrusive_pointer_cast<Held>(context->saved_data[kHeld].toCapsule());
    if (at::GradMode::is_enabled())
      return differentiable_backward(saved[0], *held->context, gradients[0]);
    const Kept k{saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6], saved[7]};
    const bool all = context->needs_input_grad({{1, kInputs}});
    Gradients g =
        ops::backward(*held->context, *held->attention, k, gradients[0].contiguous(), all);
    result[0] = g.z;
    if (!all) return result;
    const variable_list others{g.injected,
                               g.qkv,
                               g.output,
                               g.output_bias,
                               g.inner,
                               g.inner_bias,
                               g.outer,
                               g.outer_bias,
                               g.attention.past_k,
                               g.attention.past_v,
                               g.attention.r,
                               g.attention.content_bias,
                               g.attention.position_bias};
    std::copy(others.begin(), others.end(), result.begin() + 1);
    if (!held->context->injected.defined()) result[1] = Tensor();
    return result;
  }

  /// Through the reference, where the gradient is to be differentiated again (create_graph).
  static variable_list differentiable_backward(const Tensor& z, const BlockContext& c,
                                               const Tensor& df) {
    const Tensor f = transformer_block_reference(z, c);
    variable_list all = inputs_of(c), inputs;
    all.insert(all.begin(), z);
    std::vector<size_t> places;
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].numel() == 0 || !all[i].requires_grad()) continue;
      inputs.push_back(all[i]);
      places.push_back(i);
    }
    const variable_list found =
        torch::autograd::grad({f}, inputs, {df}, /*retain_graph=*/true, /*create_graph=*/true,
                              /*allow_unused=*/true);
    variable_list result(kInputs + 1);
    for (size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
    return result;
  }
};

}  // namespace

Tensor transformer_block_reference(const Tensor& z, const BlockContext& c) {
  check_state(z, c);
  const BlockWeights& w = c.weights;
  const Tensor x = c.norm == NormPlace::Post ? z : layer_norm(z);
  const auto parts = affine(x, w.qkv, c.injected).chunk(3, 2);
  const Tensor seen =
      relative_attention_reference(parts[0], parts[1], parts[2], c.attention, c.view);
  const Tensor y = z + times(affine(seen, w.output, w.output_bias), c.output_mask);
  const Tensor normed = layer_norm(y);
  const Tensor hidden = times(affine(normed, w.inner, w.inner_bias).relu(), c.inner_mask);
  const Tensor fed = times(affine(hidden, w.outer, w.outer_bias), c.outer_mask);
  if (c.norm == NormPlace::Pre) return y + fed;
  return c.norm == NormPlace::Post ? layer_norm(normed + fed) : normed + fed;
}

/// The context, and the layout of its attention: made at the first evaluation, which knows that the
/// shapes fit.
struct TransformerBlock::Bound {
  BlockContext context;
  std::once_flag once;
  std::shared_ptr<const PackedAttention> attention;
};

TransformerBlock::TransformerBlock(BlockContext context) : bound_(std::make_shared<Bound>()) {
  check_context(context);
  const auto contiguous = [](Tensor& t) {
    if (t.defined()) t = t.contiguous();
  };
  contiguous(context.injected);
  for (Tensor* mask : {&context.output_mask, &context.inner_mask, &context.outer_mask})
    contiguous(*mask);
  bound_->context = std::move(context);
}

const BlockContext& TransformerBlock::context() const { return bound_->context; }

Tensor TransformerBlock::operator()(const Tensor& z) const {
  const BlockContext& c = bound_->context;
  check_state(z, c);
  if (!c.weights.packed || c.view.float_scores || z.numel() == 0)
    return transformer_block_reference(z, c);
  check_attention(z.size(0), z.size(1), z.size(2), c.attention, c.view);
  std::call_once(bound_->once, [&] {
    bound_->attention = std::make_shared<const PackedAttention>(c.attention, c.view);
  });
  if (!at::GradMode::is_enabled()) {
    Kept k{.z = z.contiguous()};
    forward(c, *bound_->attention, k, false);
    return k.f;
  }
  auto held = c10::make_intrusive<Held>();
  held->context = std::shared_ptr<const BlockContext>(bound_, &c);
  held->attention = bound_->attention;
  const variable_list others = inputs_of(c);
  return BlockNode::apply(z.contiguous(), at::TensorList(others), std::move(held));
}

}  // namespace deq::ops
