// Activations that are proximal operators: s(y) = argmin_z (z - y)^2 / 2 + h(z) of a convex h,
// which is the same as non-decreasing with slopes of at most 1 (Combettes and Pesquet 2020). Number
// by number, with the same bits wherever a number stands.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "deq/base/fields.h"

namespace deq {

enum class Activation { Relu, Tanh, Sigmoid, Softplus };
template <>
struct Names<Activation> {
  static constexpr const char* values[] = {"relu", "tanh", "sigmoid", "softplus"};
};

/// s(y), differentiable.
at::Tensor activated(Activation s, const at::Tensor& y);
/// s'(y) in [0, 1], without a tape. That of relu at 0 is 0, as in LibTorch.
at::Tensor slope_of(Activation s, const at::Tensor& y);
/// u -> s'(y) u, as a tape of activated() has it, to the bit. Without a tape.
std::function<at::Tensor(const at::Tensor& u)> passed_through(Activation s, const at::Tensor& y);
/// The proximal operator of alpha h at w, alpha > 0: z = s(t) at the t with (1 - alpha) s(t) +
/// alpha t = w, by Newton's method from 0, which converges from there for all of these. Of relu it
/// does not depend on alpha. Without a tape.
at::Tensor proximal(Activation s, const at::Tensor& w, double alpha);

}  // namespace deq
