#include "deq/cells/activation.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

namespace deq {

using at::Tensor;

namespace {

/// log(1 + exp(y)). Written with |y| alone, its derivative at 0 would be 0 in place of 1/2.
struct SoftplusNode : torch::autograd::Function<SoftplusNode> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& y) {
    context->save_for_backward({y});
    return y.relu() + (-y.abs()).exp().log1p();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list dy) {
    return {dy[0] * (0.5 * (0.5 * context->get_saved_variables()[0]).tanh() + 0.5)};
  }
};

}  // namespace

// LibTorch's sigmoid and softplus have other bits at the end of a vector than within it; its tanh,
// exp and log1p have not.
Tensor activated(Activation s, const Tensor& y) {
  switch (s) {
    case Activation::Relu:
      return y.relu();
    case Activation::Tanh:
      return y.tanh();
    case Activation::Sigmoid:
      return 0.5 * (0.5 * y).tanh() + 0.5;
    case Activation::Softplus:
      return SoftplusNode::apply(y);
  }
  return {};
}

Tensor slope_of(Activation s, const Tensor& y) {
  c10::AutoGradMode no_tape(false);
  switch (s) {
    case Activation::Relu:
      return y.gt(0).to(y.scalar_type());
    case Activation::Tanh:
      return 1 - y.tanh().square();
    case Activation::Sigmoid:
      return 0.25 - 0.25 * (0.5 * y).tanh().square();
    case Activation::Softplus:
      return 0.5 * (0.5 * y).tanh() + 0.5;
  }
  return {};
}

std::function<Tensor(const Tensor&)> passed_through(Activation s, const Tensor& y) {
  if (s == Activation::Relu)
    return [y = y.detach()](const Tensor& u) { return at::threshold_backward(u, y, 0); };
  c10::AutoGradMode tape(true);
  const Tensor leaf = y.detach().requires_grad_(true);
  return [leaf, value = activated(s, leaf)](const Tensor& u) {
    return torch::autograd::grad({value}, {leaf}, {u}, /*retain_graph=*/true)[0];
  };
}

Tensor proximal(Activation s, const Tensor& w, double alpha) {
  c10::AutoGradMode no_tape(false);
  if (s == Activation::Relu || alpha == 1) return activated(s, w);
  constexpr int kMost = 100;
  const double small = 4 * (w.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                           : std::numeric_limits<float>::epsilon());
  Tensor t = at::zeros_like(w), moving = at::ones_like(w, at::kBool);
  for (int i = 0; i < kMost && moving.any().item<bool>(); ++i) {
    const Tensor rest = (1 - alpha) * activated(s, t) + alpha * t - w;
    const Tensor step = rest / ((1 - alpha) * slope_of(s, t) + alpha);
    t = at::where(moving, t - step, t);  // a number that has arrived stays, whatever others do
    moving = moving.logical_and(step.abs().gt(small * (1 + t.abs())));
  }
  return activated(s, t);
}

}  // namespace deq
