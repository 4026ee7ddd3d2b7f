// The first of the five ideas: what an equilibrium is an equilibrium of.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace deq {

/// z -> f(z, x), with x, the history and the weights already bound. Must keep the shape of z.
/// Each call returns a tensor of its own: solvers keep what they were given, so an f that fills one
/// buffer again and again would rewrite their past.
using Map = std::function<at::Tensor(const at::Tensor&)>;

}  // namespace deq
