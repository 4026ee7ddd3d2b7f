#include "deq/solvers/sweep.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/solvers/picard.h"

namespace deq {

using at::Tensor;

namespace {

/// Whether every sample's |fz - z| is within the tolerance.
bool within(const Tensor& fz, const Tensor& z, const StopRule& stop) {
  const Tensor size = fz.flatten(1).norm(2, {1}), change = (fz - z).flatten(1).norm(2, {1});
  return change.le((stop.rel_tol * size).clamp_min(stop.abs_tol)).all().item<bool>();
}

}  // namespace

Propose Sweep::start(const Layout& layout) const { return Picard{.scope = scope}.start(layout); }

Beginning Sweep::begin(const Map& f, const Tensor& z0, const StopRule& stop,
                       const Layout& layout) const {
  DEQ_CHECK(f.part() && layout.order == Order::Forward,
            "solver sweep: positions of this f depend on later ones; expected a causal cell, or "
            "another solver");
  c10::AutoGradMode no_tape(false);
  if (z0.numel() == 0) return {z0, 0};
  const int64_t T = z0.size(1);
  Tensor z = z0.clone(at::MemoryFormat::Contiguous);  // (B, T, D)
  int64_t positions = 0;                              // that were evaluated
  for (int64_t t = 0; t < T; ++t) {
    const Map at_t = f.part()(z.narrow(1, 0, t), t, 1);
    Tensor own = z.narrow(1, t, 1);  // (B, 1, D)
    const int64_t most = f.strictly_causal() ? 1 : inner;
    for (int64_t i = 0; i < most; ++i, ++positions) {
      const Tensor next = at_t(own.contiguous());
      const bool done = !f.strictly_causal() && within(next, own, stop);
      own.copy_(next);
      if (done) break;
    }
  }
  return {z, (positions + T - 1) / T};
}

}  // namespace deq
