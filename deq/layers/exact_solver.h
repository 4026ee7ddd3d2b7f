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
  bool signs_are_right();
  double most_lam() const {
    return std::max({1e-6, largest(lam_), largest(nu_), largest(data_.q, n_)});
  }
  /// Of row r of A or G: what its residual is a share of.
  double size_of(int64_t r) const { return std::max(reach_, std::fabs(right(r))); }
  double weak_lam() const { return limits_.weak * most_lam(); }
  double weak_s(int64_t r) const { return limits_.weak * size_of(p_ + r); }

  const ScaledProgram& program_;
  ops::QuadraticData data_;
  ops::QuadraticLimits limits_;
  int64_t n_, p_, m_, steps_ = 0, factorisations_ = 0, weak_ = 0;
  std::vector<double> z_, nu_, lam_, s_, centre_, centre_nu_, centre_s_, centre_z_;
  std::vector<double> y_;  // of factor_'s rows
  double reach_ = 1e-6;    // the size of z
  std::vector<uint8_t> held_, active_;
  std::unique_ptr<ExactFactor> factor_;
};

}  // namespace deq
