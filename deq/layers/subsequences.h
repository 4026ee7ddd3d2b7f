// Solving a segment by subsequences (Bai, Kolter, Koltun 2019, appendix): the equilibrium of a
// causal f is found part after part, each behind the equilibria of the parts before it.
#pragma once

#include "deq/cells/cell.h"
#include "deq/solvers/solvers.h"

namespace deq {

/// Throws deq::Error for a solver that finds no parts of this length; 0: there are none.
void check_parts(const Solver& solver, int64_t length);

/// The equilibrium of all T positions, `length` at a time, from z0 (B, T, D); no tape. A gradient
/// mode that tapes f at this equilibrium carries gradients across the parts, since f is that of the
/// whole segment. The report holds the rows of all parts in the order of a solve at once, for scope
/// `sample` one row for each part of each sample, for `whole` one for each part; its evaluations
/// are calls of f, each of `length` positions only. Throws deq::Error for an f that is not causal.
Solution solve_by_parts(const Bound& f, const at::Tensor& z0, int64_t length, const Solver& solver,
                        const StopRule& stop);

}  // namespace deq
