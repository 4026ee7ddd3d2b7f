#include "deq/solvers/start.h"

#include <ATen/ATen.h>

#include "deq/base/error.h"

namespace deq {

void check_start(const Map& f, const at::Tensor& z0) {
  DEQ_CHECK(f, "f is an empty Map; expected a callable z -> f(z)");
  DEQ_CHECK(z0.defined() && z0.is_floating_point(), "z0 is {}; expected a floating-point tensor",
            z0.defined() ? c10::toString(z0.scalar_type()) : "undefined");
}

void count_bad_starts(Report& report, const at::Tensor& z0, const Layout& layout) {
  if (report.count(Reason::NonFinite) == 0) return;
  const at::Tensor finite = layout.fold(z0.detach()).isfinite().all(1);
  report.bad_starts = finite.logical_not().sum().item<int64_t>();
}

}  // namespace deq
