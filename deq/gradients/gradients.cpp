#include "deq/gradients/gradients.h"

#include "deq/gradients/implicit.h"
#include "deq/gradients/phantom.h"
#include "deq/gradients/reversible.h"
#include "deq/gradients/unrolled.h"

namespace deq {

// The list.
const std::vector<Gradient>& GradientMode::known() {
  static const std::vector<Gradient> list{Implicit{}, Phantom{},      OneStep{},
                                          Unrolled{}, Checkpointed{}, ReversibleUnrolled{}};
  return list;
}

}  // namespace deq
