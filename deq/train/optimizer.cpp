#include "deq/train/optimizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>

namespace deq {

using at::Tensor;

Descent::Descent(const Optimizer& options, NamedTensors parameters)
    : options_(options), parameters_(std::move(parameters)) {
  c10::AutoGradMode no_tape(false);
  const bool moments = !std::holds_alternative<Sgd>(options_);
  for (const auto& [name, parameter] : parameters_) {
    mean_[name] = at::zeros_like(parameter);
    if (moments) square_[name] = at::zeros_like(parameter);
  }
}

void Descent::zero_gradients() {
  for (auto& [name, parameter] : parameters_) parameter.mutable_grad() = Tensor();
}

double Descent::clip(double limit) {
  const double before = norm();
  this->limit(before, limit);
  return before;
}

double Descent::norm() const {
  c10::AutoGradMode no_tape(false);
  Tensor sum;  // one number to wait for, where the gradients are on a GPU
  for (const auto& [name, parameter] : parameters_) {
    if (!parameter.grad().defined()) continue;
    // By rows first: a long sum as a whole would depend on the number of threads.
    const Tensor squares = parameter.grad().to(at::kDouble).square();
    const Tensor own = (squares.dim() > 1 ? squares.flatten(1).sum(1) : squares).sum();
    sum = sum.defined() ? sum + own : own;
  }
  return sum.defined() ? std::sqrt(sum.item<double>()) : 0;
}

void Descent::limit(double norm, double limit) {
  c10::AutoGradMode no_tape(false);
  if (limit > 0 && norm > limit) {
    for (auto& [name, parameter] : parameters_) {
      if (parameter.grad().defined()) parameter.mutable_grad().mul_(limit / norm);
    }
  }
}

void Descent::moment_step(const MomentOptions& o, double rate, bool decoupled, bool rectified) {
  const double t = double(count_);
  const double correction1 = 1 - std::pow(o.beta1, t), correction2 = 1 - std::pow(o.beta2, t);
  // RAdam: rho is the length of the approximated simple moving average; below 5 the variance is
  // untractable.
  const double rho_inf = 2 / (1 - o.beta2) - 1;
  const double rho = rho_inf - 2 * t * std::pow(o.beta2, t) / correction2;
  const bool adaptive = !rectified || rho > 5;
  const double rectifier =
      rectified && adaptive
          ? std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
          : 1;
  for (auto& [name, parameter] : parameters_) {
    if (!parameter.grad().defined()) continue;
    Tensor g = parameter.grad();
    if (decoupled) {
      parameter.mul_(1 - rate * o.weight_decay);
    } else if (o.weight_decay > 0) {
      g = g + o.weight_decay * parameter;
    }
    Tensor& mean = mean_[name];
    Tensor& square = square_[name];
    mean.mul_(o.beta1).add_(g, 1 - o.beta1);
    square.mul_(o.beta2).addcmul_(g, g, 1 - o.beta2);
    if (adaptive) {
      const Tensor root = square.sqrt().div_(std::sqrt(correction2)).add_(o.epsilon);
      parameter.addcdiv_(mean, root, -rate * rectifier / correction1);
    } else {
      parameter.add_(mean, -rate / correction1);
    }
  }
}

void Descent::step(double rate) {
  c10::AutoGradMode no_tape(false);
  ++count_;
  if (const auto* adam = std::get_if<Adam>(&options_))
    return moment_step(*adam, rate, false, false);
  if (const auto* adamw = std::get_if<AdamW>(&options_))
    return moment_step(*adamw, rate, true, false);
  if (const auto* radam = std::get_if<RAdam>(&options_))
    return moment_step(*radam, rate, false, true);
  const Sgd& sgd = std::get<Sgd>(options_);
  for (auto& [name, parameter] : parameters_) {
    if (!parameter.grad().defined()) continue;
    const Tensor g = parameter.grad() + sgd.weight_decay * parameter;
    parameter.add_(mean_[name].mul_(sgd.momentum).add_(g), -rate);
  }
}

NamedTensors Descent::state() const {
  NamedTensors state{{"count", at::scalar_tensor(double(count_), at::kDouble)}};
  for (const auto& [name, tensor] : mean_) state["mean." + name] = tensor;
  for (const auto& [name, tensor] : square_) state["square." + name] = tensor;
  return state;
}

void Descent::restore(const NamedTensors& state) {
  c10::AutoGradMode no_tape(false);
  for (auto& [name, tensor] : this->state()) {
    const auto found = state.find(name);
    DEQ_CHECK(found != state.end() && found->second.sizes() == tensor.sizes(),
              "optimiser state '{}' is {}; expected shape [{}]", name,
              found == state.end() ? "missing"
                                   : fmt::format("[{}]", fmt::join(found->second.sizes(), ", ")),
              fmt::join(tensor.sizes(), ", "));
    if (name != "count") tensor.copy_(found->second);
  }
  count_ = int64_t(state.at("count").item<double>());
}

}  // namespace deq
