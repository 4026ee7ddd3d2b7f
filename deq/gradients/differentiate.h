// What every gradient mode is given: how to find the equilibrium, and where to report the adjoint.
#pragma once

#include <functional>

#include "deq/base/map.h"
#include "deq/solvers/report.h"

namespace deq {

/// One call of a gradient mode. A mode keeps nothing between calls.
struct Forward {
  /// Solves z = f(z) from z0 without a tape.
  std::function<Solution(const Map& f, const at::Tensor& z0)> solve;
  /// The stop rule of that solve; modes that unroll judge their last step by it.
  StopRule stop;
  /// Called from backward with the adjoint's report, when there was an adjoint solve. May be empty.
  /// With several backward threads it is called from them.
  std::function<void(const Report&)> on_adjoint;
};

/// z with its tape (when gradients are on), and the report of how it was found.
struct Equilibrated {
  at::Tensor z;
  Report report;
};

}  // namespace deq
