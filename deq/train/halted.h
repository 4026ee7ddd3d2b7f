// A model's plain steps at test time, from which problems halt by a rule.
#pragma once

#include "deq/models/model.h"

namespace deq {

/// Where each problem of a batch was left, and after how many evaluations.
struct Halted {
  at::Tensor z;       ///< (B, ..., D)
  at::Tensor halted;  ///< (B) bool; false: the steps ran out first
  /// A row for each problem: the residual of f at z, and whether that is converged: the rule's word
  /// is not taken for it. That is one evaluation more than `steps` says, but where the steps of an
  /// equilibrium ran out, which is left where the same limit leaves it without a rule.
  Report report;
};

/// z <- f(z) from zeros (of cells that do not see x from x), damped as solver picard says; of an
/// explicit network its tied levels, at most as many as there are. A problem that halts leaves the
/// batch. Neither its answer nor its steps depend on the others. `first` is the number of the
/// batch's first problem. The model is in evaluation mode; no tape. Throws deq::Error for a rule
/// that never halts, for an equilibrium with another solver, and for a subsequence.
Halted run_halting(Model& model, const at::Tensor& tokens, const Halting& rule,
                   const ForwardOptions& how, int64_t first);

/// Throws deq::Error where an equilibrium's solver takes other steps than plain ones.
void check_plain_steps(const Model& model, const Halting& rule, const Solver& solver);

}  // namespace deq
