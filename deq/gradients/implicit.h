// The implicit gradient (Bai, Kolter, Koltun 2019, Theorem 1). With z* = f(z*, theta) and g =
// dL/dz*,
//
//   u = J^T u + g,   J = df/dz at z*,        dL/dtheta = (df/dtheta)^T u
//
// z* is found without a tape; f(z*) is taped once, and the adjoint u is solved with vector-Jacobian
// products of that tape through the same `solve`. Memory does not depend on the number of steps of
// either solve.
#pragma once

#include "deq/gradients/differentiate.h"

namespace deq {

struct Implicit {
  static constexpr const char* name = "implicit";
  Solver solver = Anderson{};
  StopRule stop = {.max_steps = 40, .rel_tol = 1e-3};

  static void fields(auto& self, auto&& field) {
    field("solver", self.solver, "solver of the adjoint u = J^T u + g");
    field("", self.stop);
  }

  /// The value is z* itself (the reported residual is its own); the gradient passes u on to f(z*).
  /// Gradients reach whatever f captured; that with respect to z0 is zero. Throws deq::Error when
  /// differentiated twice.
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const;
};

}  // namespace deq
