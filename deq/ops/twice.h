// For nodes whose own backward is a kernel: the gradient where it is to be differentiated again.
#pragma once

#include <torch/csrc/autograd/variable.h>

#include <functional>

namespace deq::ops {

/// Gradients of y = f(inputs) by every input, given dy, with a tape of their own (create_graph);
/// undefined for inputs without elements, that need none, or that y does not depend on. Each is the
/// node's own: where one input depends on another, what it passes on there is left to the graph
/// around the node.
torch::autograd::variable_list taped_gradients(
    const std::function<at::Tensor(const torch::autograd::variable_list&)>& f,
    const torch::autograd::variable_list& inputs, const at::Tensor& dy);

}  // namespace deq::ops
