// One quadratic program in numbers of about one size: what its kernels work on.
#pragma once

#include <cstdint>
#include <vector>

#include "deq/ops/quadratic_kernel.h"

namespace deq {

/// The matrices of a program scaled by powers of two, so that nothing is rounded, after Ruiz ("A
/// scaling algorithm to equilibrate both rows and columns norms in matrices", 2001):
///
///     Q' = c D Q D of Q's symmetric part,   A' = E A D,   G' = F G D
///
/// The largest entry of Q' and of each row of A' and G' is in [1, 2); what is 0 stays.
struct ScaledMatrices {
  ops::QuadraticShape shape;
  std::vector<double> Q, A, G;  ///< contiguous by rows
  std::vector<double> D, E, F;
  double c = 1;
  bool flat = false;   ///< Q is 0
  bool finite = true;  ///< else nothing else means anything

  ScaledMatrices(const ops::QuadraticShape& shape, const double* Q, const double* A,
                 const double* G);
};

/// A whole program in numbers of about 1: z = tau D z', objective' = kappa objective,
///
///     curvature Q' z' + q' + A''nu' + G''lam' = 0,   q' = kappa tau D q,   b' = E b / tau,
///     h' = F h / tau
///
/// A row whose h is +infinity is no row: its h' is 1, and it is 0 in G'.
class ScaledProgram {
 public:
  ScaledProgram(const ScaledMatrices& matrices, const double* q, const double* b, const double* h);

  bool finite() const { return finite_; }
  const ops::QuadraticShape& shape() const { return matrices_->shape; }
  const ScaledMatrices& matrices() const { return *matrices_; }
  /// Points into this and into `matrices`.
  ops::QuadraticData data() const;

  /// To the program's own numbers, in place. Each may be null.
  void unscale(double* z, double* nu, double* lam) const;
  /// And back.
  void rescale(double* z, double* nu, double* lam) const;
  /// What a right hand side g of K w = g is for the kernels, and what their w is for the program.
  void transform(double* z, double* nu, double* lam) const;
  /// Of row r of A (r < p) or G: multiplier = this times the kernel's.
  double multiplier(int64_t r) const;
  /// The kernels' objective = this times the program's.
  double objective() const { return kappa_; }

 private:
  const ScaledMatrices* matrices_;
  std::vector<double> q_, b_, h_, bounded_;  // the last: G' where it is not the matrices'
  double tau_ = 1, kappa_ = 1;
  bool finite_ = true;
};

}  // namespace deq
