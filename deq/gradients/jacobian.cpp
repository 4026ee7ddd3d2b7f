#include "deq/gradients/jacobian.h"

#include <ATen/ATen.h>

#include "deq/gradients/taped_jacobian.h"

namespace deq {

using at::Tensor;

Tensor jacobian_loss(const Map& f, const Tensor& z, int64_t probes) {
  DEQ_CHECK(probes >= 1, "jacobian_loss: probes = {}; expected >= 1", probes);
  const TapedJacobian jacobian(f, z, c10::GradMode::is_enabled());
  Tensor sum;
  for (int64_t k = 0; k < probes; ++k) {
    const Tensor squares = jacobian.vjp(at::randn_like(z)).square();
    const Tensor product = z.numel() > 0 ? squares.mean() : squares.sum();
    sum = sum.defined() ? sum + product : product;
  }
  return sum / double(probes);
}

}  // namespace deq
