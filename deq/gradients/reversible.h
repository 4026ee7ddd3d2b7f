// The explicit network of two coupled states, whose steps can be undone: exact gradients in memory
// that does not grow with the steps.
#pragma once

#include "deq/gradients/differentiate.h"

namespace deq {

/// From y = z = z0, `steps` times, after McCallum, Arora and Foster (2025: reversible deep
/// equilibrium models):
///
///     y <- (1 - damping) y + damping f(z)
///     z <- (1 - damping) z + damping f(y)                       two evaluations a step
///
/// with z the result. Both converge where the damped iteration does, and backward undoes a step by
/// z <- (z - damping f(y)) / (1 - damping), and y likewise: nothing of the steps is kept but the
/// last y and z, in double, and each is evaluated once more with a tape. Gradients are those of the
/// chain. What contracts, forgets: undoing a step magnifies rounding by 1 / (1 - damping), so that
/// after each 18 bits lost (18 steps at damping 0.5, 55 at 0.2) y and z are kept once more.
///
/// The forward solver is not used. The report's residual is that of z, by one more evaluation. f
/// must give the same every time (draw its dropout masks beforehand), and is called in backward: it
/// must own what it captures. A row that is not finite has the gradient NaN. Gradients reach z0 as
/// well. Throws deq::Error when differentiated twice.
struct ReversibleUnrolled {
  static constexpr const char* name = "reversible";
  int64_t steps = 12;
  double damping = 0.5;

  static void fields(auto& self, auto&& field) {
    field("steps", self.steps, "levels of the network, of two evaluations each", at_least(1));
    field("damping", self.damping, "of both states; 1 cannot be undone", left_open(0, 0.999));
  }
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const;
};

}  // namespace deq
