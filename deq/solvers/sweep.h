#pragma once

#include "deq/base/map.h"
#include "deq/solvers/solvers.h"

namespace deq {

/// Gauss and Seidel's method over the positions of a causal f: position after position is brought
/// to its equilibrium by plain iteration, behind those of the positions before it (Map::part).
/// Where f at a position depends on those before it alone, that is one evaluation of each, and all
/// together one of f. What was found is judged by f as a whole, and goes on with plain iteration
/// where it is not yet within the tolerance.
///
/// Not for an adjoint, which runs backward: an f that is strictly causal brings its own
/// (Map::Linearised::solve).
struct Sweep {
  static constexpr const char* name = "sweep";
  int64_t inner = 100;
  Scope scope = Scope::Position;

  static void fields(auto& self, auto&& field) {
    field("inner", self.inner, "evaluations of one position at most", at_least(1));
    field("scope", self.scope, "rows that are judged on their own");
  }

  Propose start(const Layout& layout) const;
  /// Throws deq::Error for an f without parts.
  Beginning begin(const Map& f, const at::Tensor& z0, const StopRule& stop,
                  const Layout& layout) const;
};

}  // namespace deq
