#pragma once

#include "deq/solvers/driver.h"

namespace deq {

/// Limited-memory "good" Broyden for g(z) = f(z) - z, started from the inverse Jacobian -I, so that
/// the first step is z1 = f(z0). With s_i = z_{i+1} - z_i, y_i = g_{i+1} - g_i and the pairs in the
/// order of time, the inverse Jacobian of the last `memory` pairs is (Byrd, Nocedal, Schnabel 1994,
/// compact form)
///
///     H = -I + (S + Y) (S^T Y + strictly_lower(S^T S))^{-1} S^T,        next z = z - H g
///
/// Dropping the oldest pair leaves exactly the Broyden inverse of the others: it stays an inverse.
struct Broyden {
  static constexpr const char* name = "broyden";
  int64_t memory = 20;
  bool line_search = false;
  Scope scope = Scope::Sample;

  static void fields(auto& self, auto&& field) {
    field("memory", self.memory, "secant pairs kept; 2 states each", between(1, 1024));
    field("line_search", self.line_search, "Armijo backtracking on |f(z) - z|^2, row by row");
    field("scope", self.scope, "rows with an inverse of their own; causal has none");
  }

  /// Throws deq::Error for scope causal, which only methods that mix iterates have.
  Propose start(const Layout& layout) const;
};

}  // namespace deq
