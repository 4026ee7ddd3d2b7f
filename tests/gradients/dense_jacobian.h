// A small map, and the whole Jacobian of any.
#pragma once

#include <torch/csrc/autograd/autograd.h>

#include "tests/problems.h"

namespace deq::testing {

/// J[i, j] = d f_i / d z_j of the flattened state, one row at a time.
inline at::Tensor dense_jacobian(const Map& f, const at::Tensor& z0) {
  const at::Tensor z = z0.detach().requires_grad_(true);
  const at::Tensor fz = f(z).reshape({-1});
  std::vector<at::Tensor> rows;
  for (int64_t i = 0; i < fz.numel(); ++i) {
    rows.push_back(torch::autograd::grad({fz[i]}, {z}, {}, /*retain_graph=*/true)[0].reshape({-1}));
  }
  return at::stack(rows);
}

struct Layer {
  at::Tensor W = (0.4 * randn({5, 5}, at::kDouble, 100)).requires_grad_(true);
  at::Tensor x = randn({3, 4, 5}, at::kDouble, 101);
  Map map() const {
    return [W = W, x = x](const at::Tensor& z) { return at::tanh(z.matmul(W) + x); };
  }
};

}  // namespace deq::testing
