#include "deq/ops/twice.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

namespace deq::ops {

using torch::autograd::variable_list;

variable_list taped_gradients(const at::Tensor& y, const variable_list& inputs,
                              const at::Tensor& dy) {
  variable_list wanted;
  std::vector<size_t> places;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].numel() == 0 || !inputs[i].requires_grad()) continue;
    wanted.push_back(inputs[i]);
    places.push_back(i);
  }
  const variable_list found = torch::autograd::grad({y}, wanted, {dy}, /*retain_graph=*/true,
                                                    /*create_graph=*/true, /*allow_unused=*/true);
  variable_list result(inputs.size());
  for (size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
  return result;
}

}  // namespace deq::ops
