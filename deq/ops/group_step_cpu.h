// group_step.h on the CPU: the kernels over the samples of a batch.
#pragma once

#include "deq/base/tensor_pool.h"
#include "deq/ops/group_step.h"

namespace deq::ops {

/// The context's weights as the kernels read them, and the groupings with their shares.
struct GroupWeights {
  GroupWeights() = default;
  explicit GroupWeights(const GroupContext& context);

  /// In panels, one after the other: of own, place and the kinds, and of output.
  struct Layout {
    at::Tensor own, place, output;
    std::vector<at::Tensor> kinds;
  };
  Layout forward, backward;
  std::vector<at::Tensor> shares;  // of each grouping, (groups)
};

/// What an evaluation leaves for its backward.
struct GroupKept {
  at::Tensor f;       // as z
  at::Tensor hidden;  // (B, P, S, I)
  at::Tensor scale;   // (B, P, S)
  at::Tensor means;   // (B, messages, w)
};
/// f(z), z contiguous; with `taped` everything that backward reads.
GroupKept group_forward_cpu(const GroupContext& context, const GroupWeights& weights,
                            const at::Tensor& z, bool taped);

/// What one evaluation of a solve, or one product with J^T, leaves for the next.
struct GroupSeries {
  at::Tensor latest;
  TensorPool pool;
};
/// The next evaluation of a solve; samples of which all positions are done keep their latest.
at::Tensor group_resume_cpu(const GroupContext& context, const GroupWeights& weights,
                            const at::Tensor& z, const std::vector<int64_t>& done,
                            GroupSeries& series);
/// The same of J^T df.
at::Tensor group_resume_backward_cpu(const GroupContext& context, const GroupWeights& weights,
                                     const GroupKept& kept, const at::Tensor& df,
                                     const std::vector<int64_t>& done, GroupSeries& series);

/// Gradients of z and, with `all`, of everything else that f depends on.
struct GroupGiven {
  at::Tensor z, injected, own, place, kinds, output;
};
GroupGiven group_backward_cpu(const GroupContext& context, const GroupWeights& weights,
                              const at::Tensor& z, const GroupKept& kept, const at::Tensor& df,
                              bool all);

}  // namespace deq::ops
