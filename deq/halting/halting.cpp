#include "deq/halting/halting.h"

#include <ATen/ATen.h>

#include "deq/halting/act.h"
#include "deq/halting/change.h"
#include "deq/halting/none.h"
#include "deq/halting/ponder.h"
#include "deq/halting/residual.h"
#include "deq/halting/right_head.h"

namespace deq {

// The list.
const std::vector<Halting>& HaltingRule::known() {
  static const std::vector<Halting> list{NoHalting{},       HaltByResidual{}, HaltByChange{},
                                         AdaptiveHalting{}, PonderHalting{},  RightHead{}};
  return list;
}

at::Tensor beside_states(const at::Tensor& samples, const at::Tensor& states) {
  std::vector<int64_t> shape(size_t(states.dim()), 1);
  shape[0] = states.size(0);
  return samples.view(shape);
}

}  // namespace deq
