#include "deq/cells/energy_terms.h"

#include <ATen/ATen.h>

#include "deq/base/error.h"
#include "deq/cells/energy_attention.h"
#include "deq/cells/energy_convolution.h"
#include "deq/cells/energy_groups.h"
#include "deq/cells/energy_patterns.h"

namespace deq {

using at::Tensor;

// The list.
const std::vector<EnergyTermOptions>& EnergyTermMaker::known() {
  static const std::vector<EnergyTermOptions> list{EnergyConvolution{}, EnergyGroups{},
                                                   EnergyAttention{}, EnergyPatterns{}};
  return list;
}

void check_smooth(Activation activation) {
  DEQ_CHECK(activation != Activation::Relu,
            "cell-of-activation = relu has no second derivative, which the gradient of an energy's "
            "minimum needs; expected tanh, sigmoid or softplus");
}

Tensor by_place(const Tensor& y, const ops::AffineWeight& weight, const Tensor& base) {
  std::vector<int64_t> shape = y.sizes().vec();
  shape.back() = weight.weight.size(0);
  return ops::affine(y.reshape({y.size(0), -1, y.size(-1)}), weight, base).view(shape);
}

}  // namespace deq
