#pragma once

#include "deq/solvers/splitting.h"

namespace deq {

/// Peaceman and Rachford's splitting (splitting.h): the fastest of them where I - W is well
/// conditioned.
struct PeacemanRachford {
  static constexpr const char* name = "peaceman-rachford";
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
