// One quadratic program with all care: what the kernels leave open, because rows depend on each
// other or are weakly active, the solution is one of many, or there is none.
#pragma once

#include <memory>
#include <vector>

#include "deq/layers/degenerate.h"
#include "deq/layers/exact_factor.h"
#include "deq/layers/scaled_program.h"
#include "deq/solvers/report.h"

namespace deq {

/// In the numbers of the scaled program, except for the certificate.
struct ExactAnswer {
  Reason reason = Reason::MaxSteps;
  std::vector<double> z, nu, lam;
  std::vector<uint8_t> active;  ///< (m) rows that are tight and may not be left out
  int64_t weak = 0;             ///< weakly active rows
  double residual = 0;
  int64_t steps = 0, factorisations = 0;
  std::vector<double> certificate;      ///< see Optimum::certificate
  std::unique_ptr<ExactFactor> factor;  ///< of the rows that the gradient holds; none: no gradient
};

/// Never throws for what the program is. `steps`: of the interior point.
ExactAnswer solve_exactly(const ScaledProgram& program, const ops::QuadraticLimits& limits,
                          const Degenerate& degenerate);

}  // namespace deq
