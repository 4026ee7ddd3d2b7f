// The first of the five ideas: what an equilibrium is an equilibrium of.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace deq {

/// z -> f(z, x), with x, the history and the weights already bound. Must keep the shape of z.
using Map = std::function<at::Tensor(const at::Tensor&)>;

}  // namespace deq
