#include "deq/solvers/picard.h"

#include <ATen/ATen.h>

namespace deq {

Propose Picard::start(const Layout&) const {
  return [damping = damping](const Iterate& at) -> Proposal {
    return {damping == 1.0 ? at.fz : at.z + damping * at.g, {}};
  };
}

}  // namespace deq
