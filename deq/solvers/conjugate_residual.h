#pragma once

#include "deq/solvers/solvers.h"

namespace deq {

/// The conjugate residual method (Stiefel 1955) for an affine f(u) = J u + g with a symmetric J, as
/// the adjoint of an f that has an energy: of all u in the Krylov space of I - J and the first
/// residual the one with the smallest residual, from five states, whatever the number of steps.
///
/// One evaluation a step, of the best u plus t times its residual r: f there less it is
/// r - t (I - J) r, which tells the product that the next direction needs. Anderson's method with
/// unlimited memory takes the same iterates. A row whose directions are no longer orthogonal, by
/// rounding, begins anew from where it is; where I - J is not positive definite r may be orthogonal
/// to (I - J) r, and the row stays there.
struct ConjugateResidual {
  static constexpr const char* name = "conjugate-residual";
  Scope scope = Scope::Sample;

  static void fields(auto& self, auto&& field) {
    field("scope", self.scope, "rows that are solved on their own");
  }

  /// Throws deq::Error for an f without an energy, by which its Jacobian is known to be symmetric,
  /// and for scopes by position.
  Propose start(const Map& f, const Layout& layout) const;
};

}  // namespace deq
