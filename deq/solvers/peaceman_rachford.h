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
    field("alpha", self.alpha, "step; 0: 1 / sqrt(margin * norm of I - W)", between(0, 1e6));
    field("memory", self.memory, "past iterates that Anderson's method mixes; 0: none",
          between(0, 64));
    field("scope", self.scope, "whose residuals choose the coefficients");
  }

  /// Throws deq::Error for an f without a resolvent.
  Propose start(const Map& f, const Layout& layout) const;
};

}  // namespace deq
