// For nodes whose own backward is a kernel: the gradient where it is to be differentiated again.
#pragma once

#include <torch/csrc/autograd/variable.h>

namespace deq::ops {

/// Gradients of y by every input, given dy, with a tape of their own (create_graph); undefined for
/// inputs without elements, that need none, or that y does not depend on.
torch::autograd::variable_list taped_gradients(const at::Tensor& y,
                                               const torch::autograd::variable_list& inputs,
                                               const at::Tensor& dy);

}  // namespace deq::ops
