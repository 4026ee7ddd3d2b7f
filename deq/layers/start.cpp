#include "deq/layers/start.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

Tensor make_start(const StartOptions& options, const Tensor& x, int64_t width) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = width;
  const auto like = x.options().requires_grad(false);
  switch (options.kind) {
    case StartKind::Zero:
    case StartKind::Remembered:
      return at::zeros(shape, like);
    case StartKind::Normal:
      return at::randn(shape, like).mul_(options.std);
    case StartKind::Mixed: {
      std::vector<int64_t> sample(shape.size(), 1);
      sample[0] = shape[0];
      return at::randn(shape, like).mul_(options.std).mul_(at::rand(sample, like).lt(0.5));
    }
    case StartKind::Input:
      DEQ_CHECK(x.size(-1) == width,
                "start = input: x has {} features, the state {}; expected as many", x.size(-1),
                width);
      return x.detach().clone();
  }
  return {};
}

}  // namespace deq
