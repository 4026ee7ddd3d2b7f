#pragma once

#include "deq/gradients/differentiate.h"
#include "deq/solvers/solvers.h"

namespace deq {

/// The implicit gradient (Bai, Kolter, Koltun 2019, Theorem 1). With z* = f(z*, theta) and g =
/// dL/dz*,
///
///     u = J^T u + g,   J = df/dz at z*,        dL/dtheta = (df/dtheta)^T u
///
/// z* is found without a tape; f(z*) is taped once, and the adjoint u is solved with
/// vector-Jacobian products of that tape through the same `solve`. Memory does not depend on the
/// number of steps of either solve.
///
/// The adjoint's solve starts at g, or with `shine` at what the forward solve's last steps say that
/// u is (SHINE: Ramzi, Mannel, Bai, Starck, Ciuciu, Moreau, ICLR 2022): fewer products where they
/// say much. With max_steps = 1 that estimate is the gradient, its residual measured by one
/// product.
///
/// Where f's owner has a way of its own to u (Map::Linearised::solve) the solve starts there, and
/// is over after the product that judges it.
struct Implicit {
  static constexpr const char* name = "implicit";
  Solver solver;
  StopRule stop = {.max_steps = 40, .rel_tol = 1e-3};
  int64_t shine = 0;

  static void fields(auto& self, auto&& field) {
    field("solver", self.solver, "solver of the adjoint u = J^T u + g");
    field("", self.stop);
    field("shine", self.shine,
          "steps of the forward solve from which the adjoint's start is estimated; 2 states each; "
          "0: none",
          between(0, 1024));
  }

  /// The value is z* itself (the reported residual is its own); the gradient passes u on to f(z*).
  /// Gradients reach whatever f captured; that with respect to z0 is zero. Where f captured nothing
  /// that needs one, the result has none and no adjoint is solved. A row of z* or of u that is not
  /// finite has the gradient NaN. Backward frees what it needed, unless the graph is retained.
  /// Throws deq::Error when differentiated twice.
  ///
  /// A residual r of u says that the gradient is off by about r / (1 - rho), rho the spectral
  /// radius of J: at rho = 0.99 the default tolerance leaves some per cent.
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const;
};

}  // namespace deq
