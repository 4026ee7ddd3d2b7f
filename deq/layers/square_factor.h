// A square matrix of a few rows, of full rank or not, for solving with it and with its transpose.
#pragma once

#include <cstdint>
#include <vector>

namespace deq {

/// S = P'LU with partial pivoting, where no pivot is below kSmallPivot; else the complete
/// orthogonal decomposition S = U [T 0; 0 0] V' (Golub and Van Loan, section 5.4.7), T a lower
/// triangle, and the pseudo-inverse, in which what is below kSmallPivot is 0. Entries should be of
/// about one size.
class SquareFactor {
 public:
  static constexpr double kSmallPivot = 1e-12;

  /// S (k, k) by rows.
  void factor(const std::vector<double>& S, int64_t k);

  int64_t size() const { return k_; }
  bool singular() const { return singular_; }
  /// x = S^-1 x, or the least-norm least-squares solution.
  void solve(double* x) const;
  /// x = S'^-1 x, likewise.
  void solve_transposed(double* x) const;
  /// Of a singular S: unit vectors that span {z : Sz = 0} and {y : S'y = 0}.
  std::vector<std::vector<double>> right_null() const { return null_vectors(V_); }
  std::vector<std::vector<double>> left_null() const { return null_vectors(U_); }

 private:
  bool eliminate();
  void decompose(const std::vector<double>& S);
  void pseudo(bool transposed, double* x) const;
  std::vector<std::vector<double>> null_vectors(const std::vector<double>& basis) const;

  int64_t k_ = 0, rank_ = 0;
  bool singular_ = false;
  std::vector<double> LU_;
  std::vector<int32_t> order_;     // row of S in each row of LU, or its column in each of U
  std::vector<double> U_, V_, T_;  // U and V by columns, T by rows
};

}  // namespace deq
