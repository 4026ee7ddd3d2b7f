#include "deq/solvers/peaceman_rachford.h"

namespace deq {

Propose PeacemanRachford::start(const Map& f, const Layout& layout) const {
  return start_splitting(name, {alpha, memory, scope}, 1, f, layout);
}

}  // namespace deq
