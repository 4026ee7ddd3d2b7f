#pragma once

#include "deq/solvers/driver.h"

namespace deq {

/// Picard (fixed-point) iteration with damping: z <- (1 - damping) z + damping f(z).
struct Picard {
  static constexpr const char* name = "picard";
  double damping = 1.0;
  Scope scope = Scope::Sample;

  static void fields(auto& self, auto&& field) {
    field("damping", self.damping, "z <- (1 - damping) z + damping f(z)", left_open(0, 1));
    field("scope", self.scope, "rows that stop on their own");
  }

  Propose start(const Layout& layout) const;
};

}  // namespace deq
