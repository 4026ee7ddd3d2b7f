#include "deq/base/map.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

namespace deq {

using at::Tensor;

Map::Linearised Map::linearise(const Tensor& z) const {
  if (linearise_) return linearise_(z);
  const Tensor fz = evaluate_(z);
  return {fz, [z, fz](const Tensor& u, const std::vector<int64_t>&) {
            const auto product = torch::autograd::grad({fz}, {z}, {u}, /*retain_graph=*/true,
                                                       /*create_graph=*/false,
                                                       /*allow_unused=*/true);
            return product[0].defined() ? product[0] : at::zeros_like(u);
          }};
}

}  // namespace deq
