// The optimality conditions of some active rows of one program, whatever their rank.
#pragma once

#include <cstdint>
#include <vector>

#include "deq/ops/quadratic_kernel.h"

namespace deq {

/// Of several solutions of rows that depend on each other.
enum class Dependent : uint8_t {
  Some,       ///< as many rows as are independent, the largest and then the first, have all
  LeastNorm,  ///< the pseudo-inverse
};

/// K = [Q C'; C 0] by a null-space method: C' P = H R with column pivoting (Golub and Van Loan,
/// "Matrix Computations", 5.4), H = [Y Z], Z'QZ by Cholesky. O((n + k)^3).
class ExactFactor {
 public:
  /// `rows` of [A; G]; `weights[i]`: what row i's multiplier is in units of the program's own,
  /// in which norms are taken. Positions in y are those of `rows`.
  ExactFactor(const ops::QuadraticShape& shape, const ops::QuadraticData& data,
              std::vector<int64_t> rows, std::vector<double> weights);

  const std::vector<int64_t>& rows() const { return rows_; }
  /// Rows without those that depend on others.
  int64_t rank() const { return rank_; }
  bool dependent() const { return rank_ < int64_t(rows_.size()); }
  /// Whether C x = 0 and Qx = 0 for x = 0 alone.
  bool unique() const { return unique_; }
  /// Whether Q curves downwards along the rows.
  bool concave() const { return concave_; }

  /// K [x; y] = [x; y], in place; returns what is left over, the largest entry, where it is not to
  /// be solved. With LeastNorm what of y no x and y can give is taken from it first.
  double solve(double* x, double* y, Dependent how) const;

  /// A basis, in the kernels' units, of what can be added to y: C'N = 0; by columns, each as long
  /// as rows().
  const std::vector<std::vector<double>>& freedom() const { return freedom_; }
  /// y less its part in freedom(), by the program's own norm.
  void to_least_norm(double* y) const;

 private:
  void factor_rows();
  void factor_curvature();
  void find_freedom();
  void solve_once(double* x, double* y) const;
  void take_off(double* y, bool right_hand_side) const;
  void residual(const double* f, const double* g, const double* x, const double* y, double* rf,
                double* rg) const;

  int64_t n_, rank_ = 0;
  bool unique_ = true, concave_ = false;
  std::vector<int64_t> rows_, order_;    // rows_[order_[j]] is column j of R
  std::vector<double> weights_, C_, Q_;  // (k, n), (n, n)
  std::vector<double> R_, H_, L_;        // by columns (n, k), (n, n); (n - rank)^2
  std::vector<int64_t> pivots_;          // of Z'QZ
  int64_t curved_ = 0;                   // its rank
  std::vector<std::vector<double>> freedom_;
  std::vector<double> gram_;  // Cholesky factor of freedom's, by the weights
};

}  // namespace deq
