#include "deq/ops/transformer_block.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>
#include <vector>

#include "deq/base/error.h"
#include "deq/ops/transformer_block_cpu.h"
#include "deq/ops/transformer_composed.h"
#include "deq/ops/twice.h"

namespace deq::ops {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

/// What an evaluation needs, on its way from forward to backward.
struct Held : torch::CustomClassHolder {
  std::shared_ptr<const BlockContext> context;
  std::shared_ptr<const PackedAttention> attention;
  std::shared_ptr<const Unchanged> unchanged;
  BlockKept kept;  // of an evaluation already made
};
constexpr const char* kHeld = "held";

constexpr size_t kInputs = 14;  // of the node, with z

/// Where the context holds what f depends on besides z, in the order of the node's inputs.
template <class Context>
auto places_of(Context& c) {
  auto& w = c.weights;
  auto& a = c.attention;
  return std::array{&c.injected,   &w.qkv,          &w.output,       &w.output_bias, &w.inner,
                    &w.inner_bias, &w.outer,        &w.outer_bias,   &a.past_k,      &a.past_v,
                    &a.r,          &a.content_bias, &a.position_bias};
}

variable_list inputs_of(const BlockContext& c) {
  variable_list inputs;
  for (const Tensor* t : places_of(c))
    inputs.push_back(t->defined() ? *t
                                  : at::empty({0}, c.weights.qkv.options().requires_grad(false)));
  return inputs;
}

/// The context with other tensors in their place, those behind z in `inputs`.
BlockContext with_inputs(BlockContext c, const variable_list& inputs) {
  const auto places = places_of(c);
  static_assert(std::tuple_size_v<decltype(places)> + 1 == kInputs);
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i]->defined()) *places[i] = inputs[i + 1];
  }
  return c;
}

/// What f was bound to, and is laid out, must be what it was.
void check_unchanged(const BlockContext& c, const Unchanged& others) {
  if (c.weights.packed) c.weights.packed->check_unchanged();
  others.check("transformer_block");
}

struct BlockNode : torch::autograd::Function<BlockNode> {
  static Tensor forward(AutogradContext* context, const Tensor& z, at::TensorList /*others*/,
                        c10::intrusive_ptr<Held> held) {
    const BlockKept k = std::exchange(held->kept, {});
    context->save_for_backward({z, k.qkv, k.seen, k.f, k.log_sum, k.normed, k.hidden, k.spread});
    context->saved_data[kHeld] = c10::IValue::make_capsule(std::move(held));
    return k.f;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list result(kInputs + 1);
    if (!gradients[0].defined()) return result;
    const variable_list saved = context->get_saved_variables();
    const auto held =
        c10::static_intrusive_pointer_cast<Held>(context->saved_data[kHeld].toCapsule());
    check_unchanged(*held->context, *held->unchanged);
    if (c10::GradMode::is_enabled())
      return differentiable_backward(saved[0], *held->context, gradients[0]);
    const BlockKept k{saved[0], saved[1], saved[2], saved[3],
                      saved[4], saved[5], saved[6], saved[7]};
    const bool all = context->needs_input_grad({{1, kInputs}});
    const BlockGiven g =
        block_backward_cpu(*held->context, *held->attention, k, gradients[0].contiguous(), all);
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
    variable_list inputs = inputs_of(c);
    inputs.insert(inputs.begin(), z);
    const auto f = [&](const variable_list& x) {
      return transformer_block_reference(x[0], with_inputs(c, x));
    };
    variable_list result = taped_gradients(f, inputs, df);
    result.resize(kInputs + 1);
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
  Unchanged unchanged;  // what the context holds besides the weights
  std::once_flag once;
  std::shared_ptr<const PackedAttention> attention;
  std::shared_ptr<const ComposedBlock> composed;  // on a GPU
};

TransformerBlock::TransformerBlock(BlockContext context) : bound_(std::make_shared<Bound>()) {
  check_context(context);
  const auto contiguous = [](Tensor& t) {
    if (t.defined()) t = t.contiguous();
  };
  contiguous(context.injected);
  for (Tensor* mask : {&context.output_mask, &context.inner_mask, &context.outer_mask})
    contiguous(*mask);
  const AttentionContext& a = context.attention;
  bound_->unchanged = Unchanged({{"injected", context.injected},
                                 {"past_k", a.past_k},
                                 {"past_v", a.past_v},
                                 {"r", a.r},
                                 {"content_bias", a.content_bias},
                                 {"position_bias", a.position_bias},
                                 {"mask", a.mask},
                                 {"output_mask", context.output_mask},
                                 {"inner_mask", context.inner_mask},
                                 {"outer_mask", context.outer_mask}});
  bound_->context = std::move(context);
}

const BlockContext& TransformerBlock::context() const { return bound_->context; }

/// What the kernels read; none where the reference is to be used.
const PackedAttention* TransformerBlock::attention(const Tensor& z) const {
  const BlockContext& c = bound_->context;
  check_state(z, c);
  check_unchanged(c, bound_->unchanged);
  if (!c.weights.packed || c.view.float_scores || c.view.columns > 0 || z.numel() == 0)
    return nullptr;
  check_attention(z.size(0), z.size(1), z.size(2), c.attention, c.view);
  std::call_once(bound_->once, [&] {
    bound_->attention = std::make_shared<const PackedAttention>(c.attention, c.view);
  });
  return bound_->attention.get();
}

/// f where the kernels are not.
Tensor TransformerBlock::without_kernels(const Tensor& z) const {
  const BlockContext& c = bound_->context;
  if (!z.is_cuda() || c.view.float_scores || c.view.columns > 0 || z.numel() == 0)
    return transformer_block_reference(z, c);
  check_attention(z.size(0), z.size(1), z.size(2), c.attention, c.view);
  std::call_once(bound_->once,
                 [&] { bound_->composed = std::make_shared<const ComposedBlock>(c, z.size(1)); });
  return (*bound_->composed)(c, z);
}

Map TransformerBlock::map() const {
  const auto series = [block = *this]() -> Map::Series {
    return [block, kept = std::make_shared<BlockKept>()](const Tensor& z,
                                                         const std::vector<int64_t>& done) {
      const PackedAttention* attention = block.attention(z);
      return attention ? block_resume_cpu(block.context(), *attention, z.contiguous(), done, *kept)
                       : block.without_kernels(z);
    };
  };
  const BlockContext& c = bound_->context;
  Map f = Map([block = *this](const Tensor& z) { return block(z); }, series)
              .set_recordable(!c.view.float_scores)
              .set_linearise([block = *this](const Tensor& z) { return block.linearise(z); });
  if (c.weights.packed)
    f.set_reference([block = *this](const Tensor& z) {
      return transformer_block_reference(z, block.context());
    });
  return f;
}

Map::Linearised TransformerBlock::linearise(const Tensor& z) const {
  const PackedAttention* packed = attention(z);
  if (!packed) return Map([block = *this](const Tensor& x) { return block(x); }).linearise(z);
  BlockKept kept = block_forward_cpu(context(), *packed, z.detach().contiguous(), true);
  const Tensor fz = taped(z, kept);
  kept.f = kept.f.detach();  // what is f's product must not hold f's tape
  const Unchanged state(
      {{"z", kept.z}, {"f(z)", context().norm == NormPlace::Post ? kept.f : Tensor()}});
  return {fz, [bound = bound_, kept, state, passed = std::make_shared<BlockPassed>()](
                  const Tensor& u, const std::vector<int64_t>& done) {
            check_unchanged(bound->context, bound->unchanged);
            state.check("transformer_block");
            return block_resume_backward_cpu(bound->context, *bound->attention, kept,
                                             u.contiguous(), done, *passed);
          }};
}

/// f(z) with its tape, which `kept` was made for.
Tensor TransformerBlock::taped(const Tensor& z, BlockKept kept) const {
  auto held = c10::make_intrusive<Held>();
  held->context = std::shared_ptr<const BlockContext>(bound_, &bound_->context);
  held->attention = bound_->attention;
  held->unchanged = std::shared_ptr<const Unchanged>(bound_, &bound_->unchanged);
  held->kept = std::move(kept);
  const variable_list others = inputs_of(bound_->context);
  return BlockNode::apply(z.contiguous(), at::TensorList(others), std::move(held));
}

Tensor TransformerBlock::operator()(const Tensor& z) const {
  const BlockContext& c = bound_->context;
  const PackedAttention* packed = attention(z);
  if (!packed) return without_kernels(z);
  const bool tape = c10::GradMode::is_enabled();
  BlockKept kept = block_forward_cpu(c, *packed, z.detach().contiguous(), tape);
  return tape ? taped(z, std::move(kept)) : kept.f;
}

}  // namespace deq::ops
