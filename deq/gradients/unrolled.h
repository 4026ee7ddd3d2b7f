// The explicit network: `steps` levels of the same f, differentiated through every one of them.
#pragma once

#include "deq/gradients/differentiate.h"

namespace deq {

/// z <- f_1(z), ..., z <- f_L(z) from z0: the levels of an explicit network, every one of them
/// taped.
at::Tensor unrolled_levels(const std::vector<Map>& levels, const at::Tensor& z0);

/// `steps` times z <- (1 - damping) z + damping f(z) from z0, taped; memory grows with `steps`. The
/// forward solver is not used. The report's residual is that of the state before the last step.
struct Unrolled {
  static constexpr const char* name = "unrolled";
  int64_t steps = 12;
  double damping = 1.0;

  static void fields(auto& self, auto&& field) {
    field("steps", self.steps, "levels of the network", at_least(1));
    field("damping", self.damping, "z <- (1 - damping) z + damping f(z)", left_open(0, 1));
  }
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const;
};

/// The same as unrolled_levels with gradient checkpointing (Chen et al. 2016): only every
/// sqrt(L)-th state is kept, the segments between are evaluated again in backward. What a level
/// captured needs no list: the edges from a segment's tape into the graph that was there before
/// become the segment's own. Levels are kept and called in backward: they must own what they
/// capture, give the same every time (draw their dropout masks beforehand), and record their tape
/// in the thread they are called in. Autocast is in backward what it was at the start.
at::Tensor checkpointed_levels(const std::vector<Map>& levels, const at::Tensor& z0);

/// `Unrolled` with gradient checkpointing, as checkpointed_levels does it.
struct Checkpointed {
  static constexpr const char* name = "checkpointed";
  int64_t steps = 12;
  double damping = 1.0;

  static void fields(auto& self, auto&& field) { Unrolled::fields(self, field); }
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const;
};

/// f(z). Throws deq::Error where its shape or type is not that of z.
at::Tensor checked_value(const Map& f, const at::Tensor& z);
/// (1 - damping) z + damping fz
at::Tensor damped(const at::Tensor& z, const at::Tensor& fz, double damping);
/// The same of f(z).
at::Tensor damped_step(const Map& f, const at::Tensor& z, double damping);

/// The report of a chain whose last step was z -> next, judged by `stop`: one row per sample.
Report report_of_chain(const at::Tensor& z, const at::Tensor& next, int64_t steps, double damping,
                       const StopRule& stop);

}  // namespace deq
