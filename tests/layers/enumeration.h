// Small quadratic programs by trying every set of active rows: slow, and independent of the
// library.
#pragma once

#include <cstdint>
#include <vector>

namespace deq::testing {

/// minimise 1/2 z'Qz + q'z where Az = b, Gz <= h; by rows, Q positive semidefinite.
struct SmallProgram {
  int64_t n = 0, p = 0, m = 0;
  std::vector<double> Q, q, A, b, G, h;

  double objective(const double* z) const;
  /// The largest violation of a constraint, at least 0.
  double violation(const double* z) const;
};

/// Every z that the conditions of some independent rows give (of least norm where they give many),
/// that is feasible, with multipliers that are not negative. Empty: there is no solution.
struct Enumerated {
  std::vector<std::vector<double>> z;
};
Enumerated enumerate(const SmallProgram& program);

/// Whether any z meets the constraints.
bool feasible(const SmallProgram& program);

}  // namespace deq::testing
