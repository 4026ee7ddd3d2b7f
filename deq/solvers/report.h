// What a solve reports, row by row: nothing that did not converge passes for something that did.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "deq/base/fields.h"
#include "deq/base/map.h"

namespace deq {

/// Why a row stopped. The residual of a row is |f(z) - z| / |f(z)|, Euclidean norms. Each holds for
/// the row or for one that it depends on, `Converged` for all of these; sums over hidden keys may
/// carry NaN to rows before one as well (ops/relative_attention.h).
enum class Reason : uint8_t {
  /// |f(z) - z| <= max(abs_tol, rel_tol |f(z)|).
  Converged,
  /// The steps ran out first.
  MaxSteps,
  /// |f(z) - z| grew past kDivergence times the largest of its first value, |f(z0)| and the norm of
  /// ones: from a smaller beginning it may grow and still settle.
  Diverged,
  /// f(z) was infinite or NaN.
  NonFinite,
  // Of layers with conditions of their own, whose headers say what each means there.
  Infeasible,     ///< no state meets the constraints
  Unbounded,      ///< the objective falls without end
  NotConvex,      ///< the objective curves downwards
  NotUnique,      ///< the state is one of many
  StepUnderflow,  ///< the step size fell below what the type can tell apart
  EventMissed,    ///< no event before the end
};
inline constexpr double kDivergence = 1e6;

/// When to stop. A row is done when either tolerance is met.
struct StopRule {
  int64_t max_steps = 40;
  double rel_tol = 1e-3;
  double abs_tol = 0.0;

  static void fields(auto& self, auto&& field) {
    field("max_steps", self.max_steps, "steps of the solver at most", at_least(1));
    field("rel_tol", self.rel_tol, "converged when |f(z) - z| <= rel_tol |f(z)|",
          half_open(0, 1e6));
    field("abs_tol", self.abs_tol, "converged when |f(z) - z| <= abs_tol", at_least(0));
  }
};

/// The rows of a solve, on the CPU: R = batch for scope `sample`, R = batch * positions for
/// `position` and `causal`. A default Report is none: no solve, hence nothing that converged.
struct Report {
  at::Tensor reason;    ///< (R) uint8, Reason
  at::Tensor residual;  ///< (R) double, relative, of the state that is returned
  at::Tensor steps;     ///< (R) int64, steps until the row was done (max_steps where it never was)
  at::Tensor trace;     ///< (steps, R) double, the relative residual before each step; the first
                        ///< 2^22 numbers of it, in whole steps
  /// (R) double, at least 0: the share of a row's last change that f passed on in its direction,
  /// 1 - |g - g'| / |z - z'| of the last two evaluations in which the row moved, g = f(z) - z. NaN
  /// where it did not move, or by rounding only, and of a solve on a GPU. It is about the spectral
  /// radius that matters, once what f damps faster has gone.
  at::Tensor rate;
  int64_t evaluations = 0;  ///< calls of f, whatever they were for
  int64_t bad_starts = 0;   ///< rows that are not finite because their z0 was not
  int64_t max_steps = 0;    ///< the limit in force
  double rel_tol = 0;       ///< the tolerances in force
  double abs_tol = 0;

  bool converged() const;          ///< every row
  double converged_share() const;  ///< in [0, 1]; 1 of a solve without rows
  double worst_residual() const;   ///< the largest; NaN if any is NaN; 0 without rows
  double mean_residual() const;
  /// The largest residual / (1 - rate) of the rows whose rate is known, about how far z is from the
  /// solution, as a share of |f(z)|: where f passes on nearly all of a change, a small residual is
  /// no small error. The right size, not a bound. NaN where no rate is known.
  double error_estimate() const;
  int64_t count(Reason reason) const;
};

/// One line: why it stopped, with both numbers; and the error where it is far above the residual.
std::string describe(const Report& report);

/// What a solve gives: states, and how each row of them ended.
struct Solution {
  at::Tensor z;  ///< the best iterate of every row, shape of z0, detached
  Report report;
};

}  // namespace deq
