// A solve as one node of the graph.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "deq/layers/ode_discrete.h"

namespace deq::ode {

/// `values`, the solution from y0, whose backward is the adjoint's, with gradients to y0 and to the
/// edges that f captured.
at::Tensor with_adjoint(const at::Tensor& values, const at::Tensor& y0,
                        const std::vector<torch::autograd::Edge>& captured, const Field& f,
                        std::unique_ptr<Adjoint> adjoint, const char* mode);

/// `value`, whose backward gives zeros to these edges: of what depends on them, but does not move
/// with them. Without an edge, `value` itself.
at::Tensor with_zero_gradient(const at::Tensor& value,
                              const std::vector<torch::autograd::Edge>& edges);

}  // namespace deq::ode
