#include "deq/solvers/start.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "deq/base/error.h"

namespace deq {

void check_start(const Map& f, const at::Tensor& z0) {
  DEQ_CHECK(f, "f is an empty Map; expected a callable z -> f(z)");
  DEQ_CHECK(z0.defined() && z0.is_floating_point(), "z0 is {}; expected a floating-point tensor",
            z0.defined() ? c10::toString(z0.scalar_type()) : "undefined");
  const c10::AutoGradMode no_tape(false);
  if (std::isfinite(z0.sum().item<double>())) return;  // one pass; a sum may overflow, though
  const int64_t bad = z0.numel() - z0.isfinite().sum().item<int64_t>();
  DEQ_CHECK(bad == 0, "z0 is not finite in {} of {} numbers; expected finite ones", bad,
            z0.numel());
}

}  // namespace deq
