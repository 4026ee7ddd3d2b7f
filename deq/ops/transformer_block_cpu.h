// The CPU path of TransformerBlock: the row kernels and those of attention, and what they read.
#pragma once

#include <mutex>
#include <vector>

#include "deq/ops/open_rows.h"
#include "deq/ops/relative_attention_cpu.h"
#include "deq/ops/transformer_block.h"
#include "deq/ops/unchanged.h"

namespace deq::ops {

/// The block's weights as the kernels read them, biases too; W for backward, made when that is
/// first asked for.
class PackedBlock {
 public:
  PackedBlock(const BlockWeights& weights, WeightType type);

  /// W^T, or with `backward` W.
  template <class T>
  BlockPanels<T> panels(bool backward) const;
  const at::Tensor& output_bias() const { return biases_[0]; }
  const at::Tensor& inner_bias() const { return biases_[1]; }
  const at::Tensor& outer_bias() const { return biases_[2]; }
  /// Throws deq::Error where a weight or bias was changed in place since.
  void check_unchanged() const { unchanged_.check("transformer_block"); }

 private:
  std::vector<at::Tensor> weights_, forward_, biases_;
  Unchanged unchanged_;
  mutable std::once_flag once_;
  mutable std::vector<at::Tensor> backward_;
};

/// What one evaluation leaves for its backward, or (z to f) for the next evaluation of a solve: as
/// in BlockRows, log_sum as attention gives it.
struct BlockKept {
  at::Tensor z, qkv, seen, f, log_sum, normed, hidden, spread;
  TensorPool pool;  // of a solve's f
};

/// f(z), z contiguous; with `taped` everything that backward reads.
BlockKept block_forward_cpu(const BlockContext& context, const PackedAttention& attention,
                            const at::Tensor& z, bool taped);

/// The next evaluation of a solve, without a tape: f(z) where the first done[b] positions of sample
/// b hold what they held at the evaluation that left `kept`, which is brought up to date. At the
/// first evaluation `kept` is empty and `done` zero.
at::Tensor block_resume_cpu(const BlockContext& context, const PackedAttention& attention,
                            const at::Tensor& z, const std::vector<int64_t>& done, BlockKept& kept);

/// Gradients of z and, with `all`, of everything else that f depends on.
struct BlockGiven {
  at::Tensor z, injected, qkv, output, output_bias, inner, inner_bias, outer, outer_bias;
  AttentionGradients attention;
};
BlockGiven block_backward_cpu(const BlockContext& context, const PackedAttention& attention,
                              const BlockKept& kept, const at::Tensor& df, bool all);

/// What one product with the Jacobian's transpose leaves for the next one of a solve.
struct BlockPassed {
  at::Tensor seen, qkv, z;  // gradients of attention's result, of qkv and of z
  TensorPool pool;          // of z
};

/// The gradient of z alone, where the last done[b] positions of df hold what they held at the
/// product that left `passed`, which is brought up to date. At the first one it is empty and `done`
/// zero.
at::Tensor block_resume_backward_cpu(const BlockContext& context, const PackedAttention& attention,
                                     const BlockKept& kept, const at::Tensor& df,
                                     const std::vector<int64_t>& done, BlockPassed& passed);

}  // namespace deq::ops
