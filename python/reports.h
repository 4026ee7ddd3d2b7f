// Reports as Python sees them.
#pragma once

#include <memory>

#include "deq/gradients/differentiate.h"

namespace deq::python {

/// The report of a solve, from which that of its gradient can be had once backward has run.
struct SolveReport {
  Report report;
  std::shared_ptr<LatestReport> adjoint = {};
};

}  // namespace deq::python
