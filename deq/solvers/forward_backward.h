#pragma once

#include "deq/solvers/splitting.h"

namespace deq {

/// Forward-backward splitting for z = s(W z + b) (splitting.h; Passty 1979): a damped step before
/// s,
///
///     z <- P(z - alpha ((I - W) z - b)),   P the proximal operator of alpha h
///
/// No inverse is needed. Converges from any start for alpha < 2 m / L^2, m the margin and L the
/// norm of I - W; fastest in theory at half of that. Anderson's method accelerates z.
struct ForwardBackward {
  static constexpr const char* name = "forward-backward";
  double alpha = 0;
  int64_t memory = 8;
  Scope scope = Scope::Sample;

  static void fields(auto& self, auto&& field) {
    splitting_fields(self, field, "step; 0: margin / norm^2 of I - W");
  }

  /// Throws deq::Error for an f without a resolvent.
  Propose start(const Map& f, const Layout& layout) const;
};

}  // namespace deq
