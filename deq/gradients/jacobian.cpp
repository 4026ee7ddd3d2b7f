#include "deq/gradients/jacobian.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/solvers/layout.h"

namespace deq {
namespace {

using at::Tensor;

/// f taped at z once, for as many products v^T J as are wanted.
class TapedJacobian {
 public:
  TapedJacobian(const Map& f, const Tensor& z) {
    at::AutoGradMode tape(true);
    z_ = z.detach().requires_grad_(true);
    fz_ = f(z_);
    DEQ_CHECK(fz_.sizes() == z_.sizes(),
              "jacobian: f maps shape [{}] to [{}]; z and f(z) must have one shape",
              fmt::join(z_.sizes(), ", "), fmt::join(fz_.sizes(), ", "));
  }
  Tensor vjp(const Tensor& v, bool create_graph) const {
    if (!fz_.requires_grad()) return at::zeros_like(z_);
    const auto product =
        torch::autograd::grad({fz_}, {z_}, {v}, /*retain_graph=*/true, create_graph,
                              /*allow_unused=*/true);
    return product[0].defined() ? product[0] : at::zeros_like(z_);
  }

 private:
  Tensor z_, fz_;
};

}  // namespace

Tensor jacobian_loss(const Map& f, const Tensor& z, int64_t probes) {
  DEQ_CHECK(probes >= 1, "jacobian_loss: probes = {}; expected >= 1", probes);
  const bool differentiable = at::GradMode::is_enabled();
  const TapedJacobian jacobian(f, z);
  Tensor sum;
  for (int64_t k = 0; k < probes; ++k) {
    const Tensor product = jacobian.vjp(at::randn_like(z), differentiable).square().mean();
    sum = sum.defined() ? sum + product : product;
  }
  return sum / double(probes);
}

Tensor spectral_radius(const Map& f, const Tensor& z, int64_t iterations) {
  DEQ_CHECK(iterations >= 1, "spectral_radius: iterations = {}; expected >= 1", iterations);
  const TapedJacobian jacobian(f, z);
  const Layout layout(z, Scope::Sample, Order::Forward);
  const auto apply = [&](const Tensor& rows) {
    return layout.fold(jacobian.vjp(rows.view(z.sizes()), /*create_graph=*/false));
  };
  const auto dot = [](const Tensor& a, const Tensor& b) {
    return (a * b).sum(1, /*keepdim=*/true);
  };
  const auto normalised = [](const Tensor& rows) {
    return rows / (rows.norm(2, {1}, true) + 1e-30);
  };

  Tensor q1 = normalised(layout.fold(at::randn_like(z.detach())));
  for (int64_t k = 1; k < iterations; ++k) q1 = normalised(apply(q1));
  // The 2 x 2 matrix of J^T on the span of q1 and J^T q1, in an orthonormal basis q1, q2.
  const Tensor w1 = apply(q1);
  const Tensor a = dot(q1, w1);
  const Tensor rest = w1 - a * q1;
  const Tensor b = rest.norm(2, {1}, true);
  const Tensor q2 = rest / (b + 1e-30);
  const Tensor w2 = apply(q2);
  const Tensor c = dot(q1, w2), d = dot(q2, w2);
  const Tensor half_trace = (a + d) / 2, determinant = a * d - b * c;
  const Tensor discriminant = half_trace.square() - determinant;
  const Tensor real_pair = half_trace.abs() + discriminant.clamp_min(0).sqrt();
  const Tensor pair = at::where(discriminant >= 0, real_pair, determinant.clamp_min(0).sqrt());
  // One vector spans the dominant space: q2 is round-off, and its eigenvalue means nothing.
  const double round_off = z.scalar_type() == at::kDouble ? 1e-7 : 1e-4;
  return at::where(b > round_off * a.abs(), pair, a.abs()).squeeze(1).to(at::kDouble);
}

}  // namespace deq
