// Explicit Runge-Kutta pairs with their continuous extensions, as numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deq::ode {

/// k_i = f(t + c_i h, y + h sum_{j < i} a_ij k_j); y(t + h) = y + h sum_i b_i k_i. The last of the
/// `stages` stands at (t + h, y(t + h)) and is the first of the next step. Behind them come the
/// stages that only the continuous extension needs: y(t + theta h) = y + h sum_i b_i(theta) k_i,
/// b_i(theta) = sum_p dense[i][p] theta^(p + 1), b_i(1) = b_i.
struct Tableau {
  int order = 0;        ///< of b
  int error_order = 0;  ///< of what the estimate leaves of the error: err ~ h^error_order
  int dense_order = 0;  ///< of the continuous extension
  int stages = 0;
  std::vector<std::vector<double>> a;
  std::vector<double> c, b;
  /// h sum_i error_i k_i estimates the error; none of a method without an estimate. With `coarse`,
  /// an estimate of lower order, it is |e|^2 / sqrt(|e|^2 + 0.01 |coarse|^2).
  std::vector<double> error, coarse;
  std::vector<std::vector<double>> dense;

  int all() const { return int(a.size()); }
};

/// Tsitouras 2011, order 5(4), with its interpolant of order 4.
const Tableau& tsit5();
/// Dormand and Prince 1980, order 5(4), with Shampine's interpolant of order 4.
const Tableau& dopri5();
/// Bogacki and Shampine 1989, order 3(2), cubic Hermite interpolant.
const Tableau& bosh3();
/// Dormand and Prince's order 8 with the estimates of orders 5 and 3 and the interpolant of order 7
/// of DOP853 (Hairer, Norsett, Wanner 1993).
const Tableau& dopri8();
/// The classical method of order 4, cubic Hermite interpolant, no estimate.
const Tableau& runge_kutta4();

/// b_i(theta), as many as the tableau has stages with those of the extension.
std::vector<double> weights_at(const std::vector<std::vector<double>>& dense, double theta);

}  // namespace deq::ode
