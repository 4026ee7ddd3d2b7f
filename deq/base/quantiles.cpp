#include "deq/base/quantiles.h"

#include <ATen/ATen.h>

namespace deq {

at::Tensor pinball(const at::Tensor& forecasts, const at::Tensor& targets,
                   const std::vector<int64_t>& percents) {
  const at::Tensor q = at::tensor(percents, forecasts.options()).div_(100);
  const at::Tensor e = targets.unsqueeze(-1) - forecasts;
  return at::maximum(q * e, (q - 1) * e).mean(-1);
}

}  // namespace deq
