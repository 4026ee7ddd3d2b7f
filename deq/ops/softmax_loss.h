// The loss of a softmax over many classes, with one matrix of logits in memory where LibTorch's
// operators keep four: what it becomes in forward is its own gradient.
#pragma once

#include <ATen/core/Tensor.h>

namespace deq::ops {

/// -log softmax(hidden W^T + b)[target] in nats, (N), of hidden (N, D), weight (V, D), bias (V) and
/// targets (N) int64 in [0, V). Differentiable, twice as well. Throws deq::Error for shapes that do
/// not fit and targets out of range.
at::Tensor softmax_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& targets);

/// The plain reference, from LibTorch's operators.
at::Tensor softmax_loss_reference(const at::Tensor& hidden, const at::Tensor& weight,
                                  const at::Tensor& bias, const at::Tensor& targets);

}  // namespace deq::ops
