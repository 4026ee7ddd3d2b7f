// The loss of a softmax over many classes. LibTorch's operators keep four matrices of logits; here
// forward keeps the gradients themselves, and where there are more rows than features no matrix of
// logits is ever whole in memory.
#pragma once

#include <ATen/core/Tensor.h>

namespace deq::ops {

/// What becomes of the losses: their mean or sum, or any other function. With `Mean` another use
/// is right too, but slower.
enum class LossUse { Mean, Any };

/// -log softmax(hidden W^T + b)[target] in nats, (N), of hidden (N, D), weight (V, D), bias (V) and
/// targets (N) int64 in [0, V). Differentiable, twice as well. Throws deq::Error for shapes that do
/// not fit and targets out of range.
at::Tensor softmax_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& targets, LossUse use = LossUse::Mean);

/// The plain reference, from LibTorch's operators.
at::Tensor softmax_loss_reference(const at::Tensor& hidden, const at::Tensor& weight,
                                  const at::Tensor& bias, const at::Tensor& targets);

}  // namespace deq::ops
