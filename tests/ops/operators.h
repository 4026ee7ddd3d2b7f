// Every operator of ours that has a kernel, as one function of a list of tensors.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "deq/ops/affine.h"
#include "deq/ops/group_step.h"
#include "deq/ops/relative_attention.h"
#include "deq/ops/softmax_loss.h"
#include "deq/ops/transformer_block.h"
#include "deq/ops/trellis_step.h"

namespace deq::testing {

using at::Tensor;
using Tensors = std::vector<Tensor>;

struct Operator {
  std::string name;
  std::vector<std::vector<int64_t>> shapes;  // of its inputs
  /// The operator bound to its inputs, but for the first; called with that.
  std::function<std::function<Tensor(const Tensor&)>(const Tensors&)> bind;
  std::function<Tensor(const Tensors&)> plain;

  Tensor ours(const Tensors& x) const { return bind(x)(x[0]); }
  Tensors draw(at::ScalarType type) const {
    Tensors inputs;
    for (const auto& shape : shapes) inputs.push_back(0.5 * at::randn(shape, type));
    return inputs;
  }
};

inline ops::AttentionContext attention_of(const Tensors& x, size_t first) {
  ops::AttentionContext c;
  c.past_k = x[first];
  c.past_v = x[first + 1];
  c.r = x[first + 2];
  c.content_bias = x[first + 3];
  c.position_bias = x[first + 4];
  return c;
}

inline ops::BlockContext block_of(const Tensors& x, ops::NormPlace norm, bool with_layout) {
  ops::BlockContext c;
  c.norm = norm;
  c.view = {2, true, 0};
  c.weights = {x[1], x[2], x[3], x[4], x[5], x[6], x[7], nullptr};
  if (with_layout) c.weights = ops::block_weights(c.weights);
  c.injected = x[8];
  c.attention = attention_of(x, 9);
  return c;
}

inline ops::TrellisContext trellis_of(const Tensors& x) {
  ops::TrellisContext c;
  c.kernel = 2;
  c.weight = ops::trellis_weight(x[1], 2);
  c.injected = x[2];
  c.past = x[3].detach();
  return c;
}

inline ops::GroupContext groups_of(const Tensors& x) {
  ops::GroupContext c{x[2], x[3], x[4], x[5], x[1], {}};
  c.groupings = {{{{0, 0, 1, -1}, 2}, {{0, 1, 1, 0}, 2}}, {{{0, 0, 0, 0}, 1}}};
  return c;
}

inline std::vector<Operator> operators() {
  constexpr int64_t B = 2, T = 5, D = 12, I = 18, M = 3, H = 6, V = 9;
  std::vector<Operator> all;
  for (const auto norm : {ops::NormPlace::Post, ops::NormPlace::Pre}) {
    all.push_back({norm == ops::NormPlace::Post ? "block, post" : "block, pre",
                   {{B, T, D},
                    {3 * D, D},
                    {D, D},
                    {D},
                    {I, D},
                    {I},
                    {D, I},
                    {D},
                    {B, T, 3 * D},
                    {B, M, D},
                    {B, M, D},
                    {M + T, D},
                    {D},
                    {D}},
                   [norm](const Tensors& x) {
                     const ops::TransformerBlock block(block_of(x, norm, true));
                     return [block](const Tensor& z) { return block(z); };
                   },
                   [norm](const Tensors& x) {
                     return ops::transformer_block_reference(x[0], block_of(x, norm, false));
                   }});
  }
  all.push_back(
      {"trellis",
       {{B, T, 2 * H}, {4 * H, 2 * H}, {B, T, 4 * H}, {B, 2, 2 * H}},
       [](const Tensors& x) {
         const ops::TrellisStep step(trellis_of(x));
         return [step](const Tensor& z) { return step(z); };
       },
       [](const Tensors& x) { return ops::trellis_step_reference(x[0], trellis_of(x)); }});
  all.push_back({"groups",
                 {{B, 4, 3, H}, {B, 4, 3, I}, {I, H}, {I, H}, {2, I, H}, {H, I}},
                 [](const Tensors& x) {
                   const ops::GroupStep step(groups_of(x));
                   return [step](const Tensor& z) { return step(z); };
                 },
                 [](const Tensors& x) { return ops::group_step_reference(x[0], groups_of(x)); }});
  const auto attend = [](auto&& f) {
    return [f](const Tensors& x) {
      return f(x[0], x[1], x[2], attention_of(x, 3), ops::AttentionView{2, true, 0});
    };
  };
  all.push_back({"attention",
                 {{B, T, D}, {B, T, D}, {B, T, D}, {B, M, D}, {B, M, D}, {M + T, D}, {D}, {D}},
                 [attend](const Tensors& x) {
                   return [attend, x](const Tensor& q) {
                     Tensors with = x;
                     with[0] = q;
                     return attend(ops::relative_attention)(with);
                   };
                 },
                 attend(ops::relative_attention_reference)});
  all.push_back({"affine",
                 {{B, T, D}, {I, D}, {I}},
                 [](const Tensors& x) {
                   return [w = ops::affine_weight(x[1]), base = x[2]](const Tensor& z) {
                     return ops::affine(z, w, base);
                   };
                 },
                 [](const Tensors& x) { return at::matmul(x[0], x[1].t()) + x[2]; }});
  const Tensor targets = at::arange(B * T, at::kLong).remainder(V);
  all.push_back({"softmax loss",
                 {{B * T, D}, {V, D}, {V}},
                 [targets](const Tensors& x) {
                   return [targets, x](const Tensor& h) {
                     return ops::softmax_loss(h, x[1], x[2], targets, ops::LossUse::Any);
                   };
                 },
                 [targets](const Tensors& x) {
                   return ops::softmax_loss_reference(x[0], x[1], x[2], targets);
                 }});
  return all;
}

}  // namespace deq::testing
