#pragma once

#include "deq/solvers/solvers.h"

namespace deq {

/// The conjugate residual method (Stiefel 1955) for an affine f(u) = J u + g with a symmetric J, as
/// the adjoint of an f that has an energy: of all u in the Krylov space of I - J and the first
/// residual the one with the smallest residual, from four states, whatever the number of steps.
///
/// One evaluation a step, of the best u plus its residual r: f there less it is r - (I - J) r,
/// which tells the product that the next direction needs. Anderson's method with unlimited memory
/// takes the same iterates; where I - J is not positive definite r may be orthogonal to (I - J) r,
/// and the row stays where it is.
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
