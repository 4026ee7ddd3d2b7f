// A layer whose exact gradient is known, for every test of gradients.
#pragma once

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "deq/deq.h"
#include "tests/options.h"
#include "tests/problems.h"

namespace deq::testing {

using at::Tensor;

/// f(z) = tanh(z W + x V + b) on (B, T, D). W and b are captured leaves; x V is captured with a
/// tape of its own, upstream of f.
struct TanhLayer {
  Tensor W, V, b, x;

  explicit TanhLayer(double slope = 0.6, uint64_t seed = 70, int64_t batch = 2, int64_t width = 6)
      : W(randn({width, width}, at::kDouble, seed)),
        V(randn({4, width}, at::kDouble, seed + 1)),
        b(randn({width}, at::kDouble, seed + 2)),
        x(randn({batch, 3, 4}, at::kDouble, seed + 3)) {
    W.mul_(slope / at::linalg_matrix_norm(W, 2));
    for (const Tensor& leaf : leaves()) leaf.requires_grad_(true);
  }
  std::vector<Tensor> leaves() const { return {W, V, b, x}; }
  Tensor z0() const { return at::zeros({x.size(0), 3, W.size(0)}, at::kDouble); }
  /// Owns what it captures, as a mode that evaluates again in backward asks.
  Map map() const {
    const Tensor u = x.matmul(V);
    return [W = W, b = b, u](const Tensor& z) { return at::tanh(z.matmul(W) + u + b); };
  }
};

/// Neither linear nor symmetric in z.
inline Tensor loss_of(const Tensor& z) {
  const Tensor weights = at::arange(1, z.numel() + 1, z.options()).view(z.sizes()) / z.numel();
  return (weights * z).sum() + z.square().sum();
}

/// d loss / d leaves; undefined gradients as zeros.
inline std::vector<Tensor> gradients_of(const Tensor& loss, const std::vector<Tensor>& leaves,
                                        bool retain = false) {
  std::vector<Tensor> found = torch::autograd::grad({loss}, leaves, {}, retain,
                                                    /*create_graph=*/false, /*allow_unused=*/true);
  for (size_t i = 0; i < found.size(); ++i) {
    if (!found[i].defined()) found[i] = at::zeros_like(leaves[i]);
  }
  return found;
}

/// The exact gradient, from dense (I - J) of every position.
inline std::vector<Tensor> dense_gradients(const TanhLayer& layer) {
  at::NoGradGuard no_tape;
  const int64_t n = layer.W.size(0);
  const Tensor z = picard_limit(layer.map(), layer.z0()).view({-1, n});
  Tensor g;
  {
    at::AutoGradMode tape(true);
    const Tensor leaf = z.view(layer.z0().sizes()).detach().requires_grad_(true);
    g = gradients_of(loss_of(leaf), {leaf})[0].view({-1, n});
  }
  const Tensor slope = 1 - z * z;                               // tanh' at z W + x V + b
  const Tensor Jt = layer.W.unsqueeze(0) * slope.unsqueeze(1);  // [k, i] = dF_i / dz_k
  const Tensor u =                                              // u = J^T u + g
      at::linalg_solve(at::eye(n, at::kDouble) - Jt, g.unsqueeze(2)).squeeze(2);
  const Tensor before_tanh = u * slope;
  const Tensor x = layer.x.view({-1, layer.x.size(2)});
  return {z.t().matmul(before_tanh), x.t().matmul(before_tanh), before_tanh.sum(0),
          before_tanh.matmul(layer.V.t()).view(layer.x.sizes())};
}

inline double worst_error(const std::vector<Tensor>& found, const std::vector<Tensor>& expected) {
  double worst = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    worst = std::max(worst, relative_error(found[i], expected[i]));
  }
  return worst;
}

/// Every mode of the list, with enough steps and tolerances for an exact gradient.
inline std::vector<Gradient> every_gradient() {
  std::vector<Gradient> all = GradientMode::known();
  for (Gradient& mode : all) {
    set_where_known(mode, "steps", 70);
    set_where_known(mode, "max_steps", 200);
    set_where_known(mode, "rel_tol", 1e-12);
    if (mode.is<ReversibleUnrolled>()) set_where_known(mode, "damping", 0.9);
  }
  return all;
}
inline std::string name_of(const Gradient& gradient) { return gradient.name(); }
inline EquilibriumOptions exact(const Gradient& gradient) {
  return {.stop = {.max_steps = 200, .rel_tol = 1e-13}, .gradient = gradient};
}

}  // namespace deq::testing
