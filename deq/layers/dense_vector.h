// Vectors of a few doubles.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace deq {

inline double dot(const double* x, const double* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

inline bool all_finite(const double* x, int64_t n) {
  return std::all_of(x, x + n, [](double value) { return std::isfinite(value); });
}

/// max |x_i|; 0 of none.
inline double largest(const double* x, int64_t n) {
  double most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(x[i]));
  return most;
}
inline double largest(const std::vector<double>& x) { return largest(x.data(), int64_t(x.size())); }

}  // namespace deq
