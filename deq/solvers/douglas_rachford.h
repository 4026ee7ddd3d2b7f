#pragma once

#include "deq/solvers/splitting.h"

namespace deq {

/// Douglas and Rachford's splitting (splitting.h): Peaceman and Rachford's with half its steps,
/// which converges for every monotone I - W and every convex h.
struct DouglasRachford {
  static constexpr const char* name = "douglas-rachford";
  double alpha = 0;
  int64_t memory = 4;
  Scope scope = Scope::Sample;

  static void fields(auto& self, auto&& field) {
    splitting_fields(self, field, "step; 0: 1 / sqrt(margin * norm of I - W)");
  }

  /// Throws deq::Error for an f without a resolvent.
  Propose start(const Map& f, const Layout& layout) const;
};

}  // namespace deq
