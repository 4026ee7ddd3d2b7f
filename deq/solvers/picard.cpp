#include "deq/solvers/picard.h"

#include <ATen/ATen.h>

namespace deq {

Propose Picard::start(const Layout&) const {
  return [damping = damping](const Iterate& at) -> Proposal {
    if (damping == 1.0) return {at.fz, {}};
    at::Tensor z = at.pool.empty_like(at.z);
    return {at::add_out(z, at.z, at.g, damping), {}};
  };
}

}  // namespace deq
