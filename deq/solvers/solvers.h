// The list of solvers. To add one: its file, and its name in this variant.
#pragma once

#include <variant>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"

namespace deq {

using Solver = std::variant<Anderson, Broyden, Picard>;

/// Solves z = f(z) from z0, shape (B, T, D) or see Layout. Never throws for non-convergence: ask
/// `report`. Throws deq::Error for options out of range and for an f that changes shape or type.
Solution solve(const Map& f, const at::Tensor& z0, const Solver& solver = Anderson{},
               const StopRule& stop = {}, Order order = Order::Forward);

Scope scope_of(const Solver& solver);
/// The same solver with another scope.
Solver with_scope(Solver solver, Scope scope);

}  // namespace deq
