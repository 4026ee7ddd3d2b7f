#pragma once

#include "deq/solvers/solvers.h"

namespace deq {

/// Gradient descent on the energy of an f(z) = z - eta grad E(z), for each sample by itself:
///
///     z <- z + a (f(z) - z),   a = <s, y> / <y, y>,   s = z - z',  y = grad E(z) - grad E(z')
///
/// with z' the state before (Barzilai and Borwein 1988, the shorter of their steps; in units of
/// eta). A step that raises a sample's energy is taken back and halved until it does not, so that E
/// falls from step to step, to rounding. Where E bends down along a step, a is doubled. An energy
/// costs about a third of an evaluation of f and is not counted as one.
struct Descent {
  static constexpr const char* name = "descent";
  double step = 1.0;
  Scope scope = Scope::Sample;

  static void fields(auto& self, auto&& field) {
    field("step", self.step, "a of the first step, in steps of f", above(0));
    field("scope", self.scope, "rows that descend on their own");
  }

  /// Throws deq::Error for an f without an energy, and for scopes by position.
  Propose start(const Map& f, const Layout& layout) const;
};

}  // namespace deq
