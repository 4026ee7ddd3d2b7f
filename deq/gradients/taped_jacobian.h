#pragma once

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/base/error.h"
#include "deq/base/map.h"

namespace deq {

/// f taped at z once, for as many products v^T J as are wanted.
class TapedJacobian {
 public:
  /// `again`: the products are to be differentiated.
  TapedJacobian(const Map& f, const at::Tensor& z, bool again) : again_(again) {
    DEQ_CHECK(!c10::InferenceMode::is_enabled(),
              "jacobian: InferenceMode records no tape; expected c10::NoGradGuard instead");
    c10::AutoGradMode tape(true);
    z_ = z.detach().requires_grad_(true);
    fz_ = again ? f.differentiable(z_) : f(z_);
    DEQ_CHECK(fz_.sizes() == z_.sizes(),
              "jacobian: f maps shape [{}] to [{}]; z and f(z) must have one shape",
              fmt::join(z_.sizes(), ", "), fmt::join(fz_.sizes(), ", "));
  }
  at::Tensor vjp(const at::Tensor& v) const {
    if (!fz_.requires_grad()) return at::zeros_like(z_);
    const auto product = torch::autograd::grad({fz_}, {z_}, {v}, /*retain_graph=*/true,
                                               /*create_graph=*/again_, /*allow_unused=*/true);
    return product[0].defined() ? product[0] : at::zeros_like(z_);
  }

 private:
  bool again_;
  at::Tensor z_, fz_;
};

}  // namespace deq
