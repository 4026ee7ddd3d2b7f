#include "deq/ops/twice.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

namespace deq::ops {

using torch::autograd::variable_list;

variable_list taped_gradients(const std::function<at::Tensor(const variable_list&)>& f,
                              const variable_list& inputs, const at::Tensor& dy) {
  variable_list aliases = inputs, wanted;
  std::vector<size_t> places;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].numel() == 0 || !inputs[i].requires_grad()) continue;
    // An input may depend on another. Asked of an alias, the engine does not go behind it.
    aliases[i] = inputs[i].view_as(inputs[i]);
    wanted.push_back(aliases[i]);
    places.push_back(i);
  }
  const variable_list found =
      torch::autograd::grad({f(aliases)}, wanted, {dy}, /*retain_graph=*/true,
                            /*create_graph=*/true, /*allow_unused=*/true);
  variable_list result(inputs.size());
  for (size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
  return result;
}

}  // namespace deq::ops
