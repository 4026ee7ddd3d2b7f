// Methods for stiff equations: linear systems with I / (h gamma) - df/dy in every step.
#pragma once

#include <memory>

#include "deq/layers/ode_stepper.h"
#include "deq/ops/lu.h"

namespace deq::ode {

/// f, df/dy and df/dt at the beginning of each row's step, evaluated where a row has moved.
class Linearisation {
 public:
  /// Throws away what rows that moved hold.
  void refresh(Work& work, const Field& f);
  /// Factors of I / (h gamma) - df/dy.
  void factor(const Work& work, double gamma);
  void solve(const at::Tensor& b) const { factors_.solve(b); }

  at::Tensor f, dt;  ///< (B, n)
  int64_t jacobians = 0, factorisations = 0;

 private:
  at::Tensor dy_, matrix_;  // (B, n, n)
  ops::RowFactors factors_;
};

/// Rodas5P (Steinebach 2023), a Rosenbrock method: one factorisation and eight solves a step.
std::unique_ptr<Stepper> rodas5p(const Field& f, const ops::Allowance& allowed);
/// Kvaerno's pair of order 5(4): six implicit stages, each by a simplified Newton iteration.
std::unique_ptr<Stepper> kvaerno5(const Field& f, const ops::Allowance& allowed);

}  // namespace deq::ode
