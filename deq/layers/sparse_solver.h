// One sparse quadratic program: the method of the dense kernels (ops/interior_point-inl.h,
// ops/reduced_kkt-inl.h) with one factorisation L D L' a step of
//
//     K = [Q + rho I  A'  G'; A  -delta I  0; G  0  -S]
//
// whose order and pattern are found once. Of the interior point S = s / lam + delta; of the system
// of the active rows, S = delta for those, and a row that is not active is 0 in K. There rho and
// delta are so small that a few steps of refinement solve the system without them.
#pragma once

#include <vector>

#include "deq/layers/scaled_program.h"
#include "deq/layers/sparse_pattern.h"

namespace deq {

/// The numbers of the matrices of a program, scaled.
struct SparseMatrices : Scales {
  std::vector<double> Q, A, G;  ///< of SparsePattern::upper, A and G
  bool concave = false;         ///< Q curves downwards by more than `share` of its largest number

  SparseMatrices(const SparsePattern& pattern, const double* Q, const double* A, const double* G,
                 double share);
};

/// The factor of K for the rows that are active, in one sample.
struct SparseFactor {
  std::vector<double> L, D;
  std::vector<uint8_t> held;  ///< (m)
};

/// Solves samples one after the other, in memory of its own.
class SparseSolver {
 public:
  explicit SparseSolver(const SparsePattern& pattern);

  /// As ops::solve_quadratic solves one; `state.s` is not read or written. `Found::Exact`: `factor`
  /// is that of the active rows.
  void solve(const SparseMatrices& matrices, const ScaledVectors& vectors,
             const ops::QuadraticLimits& limits, ops::QuadraticState& state, SparseFactor& factor);

  /// As ops::solve_reduced.
  void solve_reduced(const SparseMatrices& matrices, const ScaledVectors& vectors,
                     const SparseFactor& factor, ops::ReducedRight& right);

 private:
  void begin(const SparseMatrices& matrices, const ScaledVectors& vectors);
  void factor(std::vector<double>& L, std::vector<double>& D);
  void backsolve(const SparseFactor& of, std::vector<double>& x);

  bool interior(const ops::QuadraticLimits& limits, ops::QuadraticState& state);
  void first_guess();
  double residuals();
  void step(double gap, bool quick);
  void direction();
  double length() const;

  void polish(const ops::QuadraticLimits& limits, ops::QuadraticState& state, SparseFactor& factor);
  void factor_rows(SparseFactor& factor);
  /// Whether K has no vector that it takes to almost nothing.
  bool regular(const SparseFactor& factor);
  /// K x = right for the rows held; returns the largest entry of what is left over.
  double refine(const SparseFactor& factor);
  double left_over(const SparseFactor& factor);
  double left_by_row();

  const SparsePattern& pattern_;
  const int64_t n_, p_, m_;
  const SparseMatrices* matrices_ = nullptr;
  const ScaledVectors* vectors_ = nullptr;
  // (n + p + m): z, nu and lam one behind the other.
  std::vector<double> x_, residual_, move_, right_, scratch_;
  std::vector<double> s_, ds_, rc_, Qx_;  // (m), the last (n)
  std::vector<double> values_;            // of K
  std::vector<double> G_, Q_;             // values without rows that are absent; times curvature
  SparseFactor inner_;
  double weight_ = 0, dual_size_ = 1, primal_size_ = 1;
};

}  // namespace deq
