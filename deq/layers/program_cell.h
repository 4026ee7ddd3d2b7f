// A quadratic program with learned equalities as a cell.
#pragma once

#include "deq/cells/conditions.h"
#include "deq/layers/condition.h"

namespace deq {

/// x and z (B, T, S) or (B, H, W, S).
class ProgramCell final : public ConditionCell {
 public:
  /// Throws deq::Error without symbols, and for as many equalities as there are numbers.
  ProgramCell(const LearnedProgram& options, int64_t symbols);

  Equilibrated solve(const at::Tensor& x, const ConditionOptions& how) override;
  void check_places(int64_t places) const override;
  StateKind state_kind() const override { return StateKind::Scores; }
  double sharpness() const override { return options_.sharpness; }
  bool causal() const override { return false; }
  /// A of numbers between 0 and 1, each as likely, whatever `std` is; r = 0.
  void initialise(double std) override;
  int64_t symbols() const override { return symbols_; }
  int64_t input_width() const override { return symbols_; }
  int64_t state_width() const override { return symbols_; }

  const at::Tensor& equalities() const { return A_; }  ///< (p, n)
  const at::Tensor& start() const { return r_; }       ///< (n), e^r meets the constraints

 private:
  const char* name() const override { return LearnedProgram::name; }

  LearnedProgram options_;
  int64_t symbols_;
  at::Tensor A_, r_;
};

}  // namespace deq
