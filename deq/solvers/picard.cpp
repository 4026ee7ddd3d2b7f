#include "deq/solvers/picard.h"

#include <ATen/ATen.h>

#include "deq/ops/rows.h"

namespace deq {

Propose Picard::start(const Layout&) const {
  return [damping = damping, weight = at::Tensor()](const Iterate& at) mutable -> Proposal {
    if (damping == 1.0) return {at.fz, {}};
    if (!weight.defined())
      weight = at::full({at.z.size(0), 1}, damping, at.z.options().dtype(at::kDouble));
    return {ops::row_mix(weight, {at.g}, at.z, at.resting, &at.pool), {}};
  };
}

}  // namespace deq
