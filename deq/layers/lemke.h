// Linear complementarity problems by Lemke's method.
#pragma once

#include <cstdint>
#include <vector>

namespace deq {

/// z with  z >= 0,  Mz + q >= 0,  z (Mz + q) = 0.
struct Complementarity {
  bool found = false;  ///< else z is 0: a ray, or the pivots ran out
  std::vector<double> z;
  int64_t pivots = 0;
};

/// Lemke (1965), with the lexicographic rule of Cottle, Pang and Stone ("The Linear Complementarity
/// Problem", 1992, section 4.9), which does not cycle: on a copositive M with q in the dual of
/// {z : Mz >= 0, z'Mz = 0, z >= 0} it ends in a solution. M (k, k) by rows, of numbers of about 1.
Complementarity lemke(const std::vector<double>& M, const std::vector<double>& q,
                      int64_t max_pivots);

}  // namespace deq
