#include "deq/gradients/replay.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <cmath>
#include <mutex>

#include "deq/base/epsilon.h"
#include "deq/base/error.h"

namespace deq {

Draws Draws::now(c10::Device device) {
  Draws draws;
  draws.generator_ = at::globalContext().defaultGenerator(device);
  const std::lock_guard lock(draws.generator_.mutex());
  draws.state_ = draws.generator_.get_state();
  return draws;
}

void Draws::settle() {
  if (!state_.defined()) return;
  const std::lock_guard lock(generator_.mutex());
  if (at::equal(state_, generator_.get_state())) state_ = at::Tensor();
}

Draws Draws::go_back() const {
  Draws before;
  if (!state_.defined()) return before;
  before.generator_ = generator_;
  at::Generator generator = generator_;
  const std::lock_guard lock(generator.mutex());
  before.state_ = generator.get_state();
  generator.set_state(state_);
  return before;
}

void Unwritten::add(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensors_.emplace_back(tensor.detach(), tensor._version());
}

void Unwritten::add(const std::vector<torch::autograd::Edge>& captured) {
  for (const torch::autograd::Edge& edge : captured) {
    const auto* leaf = dynamic_cast<const torch::autograd::AccumulateGrad*>(edge.function.get());
    if (leaf) add(leaf->variable);
  }
}

void Unwritten::check(const char* mode) const {
  for (const auto& [tensor, version] : tensors_) {
    DEQ_CHECK(tensor._version() == version,
              "{} gradient: a tensor of shape [{}] that f depends on was written in place between "
              "forward and backward ({} times); expected it as it was",
              mode, fmt::join(tensor.sizes(), ", "), tensor._version() - version);
  }
}

double slack_of(const at::Tensor& state) {
  const c10::AutoGradMode no_tape(false);
  return 0.25 * std::sqrt(epsilon_of(state.scalar_type())) *
         state.norm(2, at::kDouble).item<double>();
}

void check_same(const at::Tensor& again, const at::Tensor& before, double most, const char* mode) {
  const c10::AutoGradMode no_tape(false);
  const double apart = (again - before).norm(2, at::kDouble).item<double>();
  if (!std::isfinite(apart) || !std::isfinite(most)) return;
  DEQ_CHECK(apart <= most,
            "{} gradient: f is another one in backward than it was in forward (a state is {:.1e} "
            "away from where it was); expected the same tensors, and draws from LibTorch's own "
            "generator",
            mode, apart);
}

}  // namespace deq
