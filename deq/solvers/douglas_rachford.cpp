#include "deq/solvers/douglas_rachford.h"

namespace deq {

Propose DouglasRachford::start(const Map& f, const Layout& layout) const {
  return start_splitting(name, {alpha, memory, scope}, 0.5, f, layout);
}

}  // namespace deq
