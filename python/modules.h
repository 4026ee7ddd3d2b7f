// What Python's modules need of ours: names and tensors, without torch's own wrappers of modules.
#pragma once

#include <pybind11/pybind11.h>
#include <torch/nn/module.h>

namespace deq::python {

/// [(name, tensor, whether it is a parameter)]: the tensors themselves, which Python's module
/// registers, so that optimisers, state_dict and gradients work on the memory that the core reads.
pybind11::list named_tensors_of(const torch::nn::Module& module);

}  // namespace deq::python
