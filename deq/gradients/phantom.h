// Cheap gradients from the equilibrium on: a few taped, damped steps instead of an adjoint solve.
#pragma once

#include "deq/gradients/differentiate.h"

namespace deq {

/// Phantom gradient (Geng et al. 2021): from z*, `steps` times z <- (1 - damping) z + damping f(z),
/// taped. The value is z* itself; as a row vector, f's output receives
/// g damping sum_{k < steps} ((1 - damping) I + damping J)^k: with damping < 1 that is shrunk
/// against the exact gradient until `steps` is large. A row of z* that is not finite has the
/// gradient NaN.
struct Phantom {
  static constexpr const char* name = "phantom";
  int64_t steps = 5;
  double damping = 1.0;

  static void fields(auto& self, auto&& field) {
    field("steps", self.steps, "taped steps from the equilibrium on", at_least(1));
    field("damping", self.damping, "z <- (1 - damping) z + damping f(z)", left_open(0, 1));
  }
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const;
};

/// One-step (Jacobian-free) gradient (Fung et al. 2021): (I - J)^-1 is replaced by I.
struct OneStep {
  static constexpr const char* name = "one-step";

  static void fields(auto&, auto&&) {}
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const;
};

}  // namespace deq
