#pragma once

#include <memory>

#include "deq/base/map.h"
#include "deq/ops/relative_attention.h"
#include "deq/ops/transformer_kernel.h"

namespace deq::ops {

class PackedAttention;
class PackedBlock;
struct BlockKept;

/// Weights in force. Make them through block_weights(), so that all evaluations share their layout;
/// those rounded to bfloat16 (the biases are not) have no tape.
struct BlockWeights {
  at::Tensor qkv;                  ///< (3 D, D)
  at::Tensor output, output_bias;  ///< (D, D), (D)
  at::Tensor inner, inner_bias;    ///< (I, D), (I)
  at::Tensor outer, outer_bias;    ///< (D, I), (D)
  std::shared_ptr<const PackedBlock> packed;
};
BlockWeights block_weights(BlockWeights weights, WeightType type = WeightType::Exact);

/// What f needs besides z; bound once per solve.
struct BlockContext {
  NormPlace norm = NormPlace::Post;
  AttentionView view;
  AttentionContext attention;
  BlockWeights weights;
  at::Tensor injected;                             ///< (B, T, 3 D) or undefined
  at::Tensor output_mask, inner_mask, outer_mask;  ///< (B, 1, .) or undefined
};

/// One evaluation of the DEQ-Transformer's f as a single operator: everything between its products
/// happens while the rows are in the cache, and what does not depend on the state is laid out once
/// per solve.
///
///     q, k, v = W_qkv N(z) + injected
///     y = z + m_o (O attention(q, k, v) + b_o)
///     f(z) = LN(LN(y) + FF(LN(y)))     post
///          = y + FF(LN(y))             pre            N: layer norm (pre) or identity (post)
///          = LN(y) + FF(LN(y))         pre-published
///     FF(n) = m_2 (W_2 (m_1 relu(W_1 n + b_1)) + b_2),  layer norms without parameters
class TransformerBlock {
 public:
  /// Throws deq::Error for shapes that do not fit.
  explicit TransformerBlock(BlockContext context);

  /// z (B, T, D) -> f(z) (B, T, D). Differentiable, twice as well. A row's result does not depend
  /// on the number of rows or threads. Throws deq::Error, here and in backward, where something of
  /// the context was written in place after this was made: what is laid out would no longer be it.
  at::Tensor operator()(const at::Tensor& z) const;

  /// The same as a Map, whose series leaves out what is done where f is causal, or done whole; so
  /// do its products with the Jacobian's transpose, but for attention in samples not done whole.
  Map map() const;

  const BlockContext& context() const;

 private:
  struct Bound;
  const PackedAttention* attention(const at::Tensor& z) const;
  at::Tensor without_kernels(const at::Tensor& z) const;
  at::Tensor taped(const at::Tensor& z, BlockKept kept) const;
  Map::Linearised linearise(const at::Tensor& z) const;

  std::shared_ptr<Bound> bound_;
};

/// The plain reference, from LibTorch's operators.
at::Tensor transformer_block_reference(const at::Tensor& z, const BlockContext& context);

}  // namespace deq::ops
