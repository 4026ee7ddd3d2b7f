// The gradient of a program whose constraints are a barrier (Degenerate::Smoothed).
#pragma once

#include <memory>
#include <vector>

#include "deq/layers/exact_factor.h"
#include "deq/layers/scaled_program.h"

namespace deq {

/// The point of the central path where slack * multiplier = kappa for every row, by Newton's method
/// from the solution, and its linear system, with S and L slacks and multipliers,
///
///     [Q A' G'; A 0 0; G 0 -S/L] w = g:   (Q + G'(L/S)G) w_z + A'w_nu = g_z + G'(L/S)g_lam,
///     A w_z = g_nu,   w_lam = (L/S)(G w_z - g_lam)
class SmoothedFactor {
 public:
  /// In the scaled program's numbers, but for `kappa`, which is in units of the objective. Start:
  /// the solution.
  SmoothedFactor(const ScaledProgram& program, double kappa, std::vector<double> z,
                 std::vector<double> nu, std::vector<double> lam);

  std::vector<double> z, nu, lam;  ///< the point
  bool found = false;              ///< else it is none

  /// w, in place; returns what is left over as a share of g.
  double solve(double* gz, double* gnu, double* glam) const;

 private:
  void factor();
  void add_rows(const std::vector<double>& by, double* to) const;  // to += G' by

  const ScaledProgram* program_;
  std::vector<double> s_;
  std::unique_ptr<ExactFactor> factor_;
};

}  // namespace deq
