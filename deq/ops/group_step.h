#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "deq/base/map.h"
#include "deq/ops/group_kernel.h"

namespace deq::ops {

/// A kind of groups over some places.
struct Grouping {
  std::vector<int64_t> group;  ///< of each place, 0 .. count - 1; -1: none
  int64_t count = 0;           ///< of groups
};

/// What f needs besides z; bound once per solve.
struct GroupContext {
  at::Tensor own, place;  ///< (I, w), of a state, and of the mean over a place's symbols
  at::Tensor kinds;       ///< (K, I, w), of means over groups
  at::Tensor output;      ///< (w, I)
  at::Tensor injected;    ///< (B, P, S, I), biases included
  /// K sets; the messages of a set's groupings are added up.
  std::vector<std::vector<Grouping>> groupings;
};

struct GroupKept;

/// One evaluation of the cell `groups` (cells/groups.h) as a single operator: for every place p and
/// symbol s,
///
///     h = relu(injected_ps + W z_ps + W' mean_s' z_ps' + sum_k W_k mean_{q in k(p)} z_qs)
///     f(z)_ps = N(z_ps + A h)                            N(y) = y / sqrt(mean(y^2) + 1e-6)
///
/// with all that stands between z and f in the cache, a sample at a time.
class GroupStep {
 public:
  /// Throws deq::Error for shapes that do not fit.
  explicit GroupStep(GroupContext context);

  /// z (B, P, S, w), or anything of B times these numbers in this order, -> f(z) of z's shape.
  /// Differentiable, twice as well. A sample's result does not depend on those beside it, nor on
  /// threads. Throws deq::Error, here and in backward, where something of the context was written
  /// in place after this was made.
  at::Tensor operator()(const at::Tensor& z) const;

  /// The same as a Map, whose series, and that of its products with the Jacobian's transpose,
  /// leaves out samples that are done.
  Map map() const;

  const GroupContext& context() const;

 private:
  struct Bound;
  struct Node;
  bool on_cpu(const at::Tensor& z) const;
  at::Tensor taped(const at::Tensor& z, GroupKept kept) const;
  Map::Linearised linearise(const at::Tensor& z) const;

  std::shared_ptr<const Bound> bound_;
};

/// The plain reference, from LibTorch's operators.
at::Tensor group_step_reference(const at::Tensor& z, const GroupContext& context);

}  // namespace deq::ops
