// The exact solution of one quadratic program, where there is one: which rows are active, and what
// their linear system, or the freedom that it leaves, says.
#pragma once

#include <memory>
#include <vector>

#include "deq/layers/dense_vector.h"
#include "deq/layers/exact_program.h"

namespace deq {

/// One program on its way: the interior point, then the linear system of the rows that it holds.
/// Numbers are the scaled program's, which must be finite, and outlive this.
class ExactSolver {
 public:
  ExactSolver(const ScaledProgram& program, ops::QuadraticLimits limits);

  /// The interior point, near the analytic centre of all solutions.
  bool approach();
  /// The solution from there: exchanges rows until all signs are right.
  bool settle();
  /// Whether no other z is as good.
  bool unique();
  /// Takes the z of least norm, in the program's own numbers; false, and z as it was, if it is not
  /// found.
  bool to_least_norm();
  void choose_gradient(const Degenerate& degenerate);

  double residual() const;
  void write(ExactAnswer& answer) const;
  std::unique_ptr<ExactFactor> take_factor() { return std::move(factor_); }

 private:
  std::unique_ptr<ExactFactor> factored(const std::vector<uint8_t>& held);
  const double* row(int64_t r) const { return r < p_ ? data_.A + r * n_ : data_.G + (r - p_) * n_; }
  double right(int64_t r) const { return r < p_ ? data_.b[r] : data_.h[r - p_]; }

  bool solve_rows();
  void choose_multipliers();
  bool any_negative() const;
  void to_positive();
  void take_from_centre();
  void measure();
  void measure_sizes();
  double left_over(int64_t i) const;
  bool signs_are_right();
  double most_lam() const {
    return std::max({1e-6, largest(lam_), largest(nu_), largest(data_.q, n_)});
  }
  double weak_lam(int64_t r) const { return limits_.weak * size_lam_[size_t(r)]; }
  double weak_s(int64_t r) const { return limits_.weak * size_row_[size_t(p_ + r)]; }

  const ScaledProgram& program_;
  ops::QuadraticData data_;
  ops::QuadraticLimits limits_;
  int64_t n_, p_, m_, steps_ = 0, factorisations_ = 0, weak_ = 0;
  std::vector<double> z_, nu_, lam_, s_, centre_, centre_nu_, centre_s_, centre_z_;
  std::vector<double> y_;  // of factor_'s rows
  // What residuals are shares of: by variable, its terms in Qz + q + A'nu + G'lam; by row of A or
  // G, its terms in row'z and its side; by row of G, what its multiplier is weighed against, the
  // terms of its variables. To each a little of the program's largest is added: what rounding of
  // that leaves of a number that is 0.
  std::vector<double> size_z_, size_row_, size_lam_;
  std::vector<uint8_t> held_, active_;
  std::unique_ptr<ExactFactor> factor_;
};

}  // namespace deq
