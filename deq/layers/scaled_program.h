// One quadratic program in numbers of about one size: what its kernels work on.
#pragma once

#include <cstdint>
#include <vector>

#include "deq/ops/quadratic_kernel.h"

namespace deq {

/// What the matrices of a program are scaled by: powers of two, so that nothing is rounded, after
/// Ruiz ("A scaling algorithm to equilibrate both rows and columns norms in matrices", 2001):
///
///     Q' = c D Q D of Q's symmetric part,   A' = E A D,   G' = F G D
///
/// The largest entry of Q' and of each row of A' and G' is in [1, 2); what is 0 stays.
struct Scales {
  ops::QuadraticShape shape;
  std::vector<double> D, E, F;
  std::vector<int64_t> empty_A, empty_G;  ///< rows of zeros: no size tells what their sides mean
  double c = 1;
  bool flat = false;   ///< Q is 0
  bool finite = true;  ///< else nothing else means anything

  explicit Scales(const ops::QuadraticShape& of)
      : shape(of), D(size_t(of.n), 1.0), E(size_t(of.p), 1.0), F(size_t(of.m), 1.0) {}
};

/// The matrices so scaled.
struct ScaledMatrices : Scales {
  std::vector<double> Q, A, G;  ///< contiguous by rows

  ScaledMatrices(const ops::QuadraticShape& shape, const double* Q, const double* A,
                 const double* G);
};

/// Rows of G that no z can come near, if z is of the size that the other rows are of: whether they
/// are left out. With them all numbers would be of their size, and those of the others be nothing.
enum class FarRows : uint8_t { Kept, LeftOut };

/// The vectors of a program whose matrices are scaled, in numbers of about 1: z = tau D z',
/// objective' = kappa objective,
///
///     curvature Q' z' + q' + A''nu' + G''lam' = 0,   q' = kappa tau D q,   b' = E b / tau,
///     h' = F h / tau
///
/// A row whose h is +infinity, or too large a number, is no row: its h' is 1, and it is to be 0 in
/// G'. Nor is a row of zeros whose h is not below 0; other rows of zeros have sides of 1 or -1.
class ScaledVectors {
 public:
  ScaledVectors(const Scales& scales, const double* q, const double* b, const double* h,
                FarRows far = FarRows::Kept);

  bool finite() const { return finite_; }
  const ops::QuadraticShape& shape() const { return scales_->shape; }
  const std::vector<double>& q() const { return q_; }
  const std::vector<double>& b() const { return b_; }
  const std::vector<double>& h() const { return h_; }
  const std::vector<int64_t>& absent() const { return absent_; }  ///< rows of G that are none
  /// Those of absent() whose h is finite.
  const std::vector<int64_t>& far() const { return far_; }
  double curvature() const { return kappa_ * tau_ * tau_ / scales_->c; }

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
  const Scales* scales_;
  std::vector<double> q_, b_, h_;
  std::vector<int64_t> absent_, far_;
  double tau_ = 1, kappa_ = 1;
  bool finite_ = true;
};

/// A whole program.
class ScaledProgram : public ScaledVectors {
 public:
  ScaledProgram(const ScaledMatrices& matrices, const double* q, const double* b, const double* h,
                FarRows far = FarRows::Kept);

  const ScaledMatrices& matrices() const { return *matrices_; }
  /// Points into this and into `matrices`.
  ops::QuadraticData data() const;

 private:
  const ScaledMatrices* matrices_;
  std::vector<double> bounded_;  // G' where it is not the matrices'
};

/// What numbers of a program may be: larger ones are not finite, smaller ones are 0. So no product
/// of what they are scaled by overflows.
inline constexpr double kLargestNumber = 1e50, kSmallestNumber = 1e-50;

/// Puts x[i] that are too small to 0; false where one is too large, or is none.
bool bring_into_range(double* x, int64_t n);

/// The power of two next below 1 / x; 1 for what has no size.
double inverse_power(double x);

}  // namespace deq
