#pragma once

#include "deq/ops/transformer_block.h"

namespace deq::ops {

/// The block from LibTorch's operators, few and large ones, heads first: what runs where the
/// kernels do not, that is on a GPU. transformer_block_reference says the same in plainer words.
class ComposedBlock {
 public:
  /// For states (B, T, D), whose shapes were checked. Without a tape, what does not depend on the
  /// state is kept from one evaluation to the next. Nothing is copied from the host after this.
  ComposedBlock(const BlockContext& context, int64_t positions);

  at::Tensor operator()(const BlockContext& context, const at::Tensor& z) const;

 private:
  at::Tensor attend(const BlockContext& context, const at::Tensor& qkv) const;

  at::Tensor hidden_;     // (T, K) or (B, T, K) bool, the scores that are not there; or undefined
  at::Tensor distances_;  // (H, D / H, R + 1), without a tape
};

}  // namespace deq::ops
