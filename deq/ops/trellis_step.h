#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "deq/base/map.h"
#include "deq/ops/panels.h"

namespace deq::ops {

class PackedTrellis;
struct TrellisKept;

/// The weight in force. Make it through trellis_weight(), so that all evaluations share its layout;
/// one rounded to bfloat16 has no tape.
struct TrellisWeight {
  at::Tensor weight;  ///< (4 H, K H), columns by tap: those of W_0 first
  std::shared_ptr<const PackedTrellis> packed;
};
TrellisWeight trellis_weight(const at::Tensor& weight, int64_t kernel,
                             WeightType type = WeightType::Exact);

/// What f needs besides z; bound once per solve.
struct TrellisContext {
  int64_t kernel = 2;    ///< K
  int64_t dilation = 1;  ///< d
  int64_t ahead = 0;     ///< A: the last taps, which read positions to come; 0: f is causal
  TrellisWeight weight;
  at::Tensor injected;     ///< (B, T, 4 H), biases included
  at::Tensor hidden_mask;  ///< (B, 1, H), m; undefined: none
  /// (B, P, 2 H) states before, P >= max(1, d (K - 1 - A)); the last ones count. Behind the last
  /// position h is zero.
  at::Tensor past;
};

/// One evaluation of the DEQ-TrellisNet's f as a single operator: the convolution of h, one block
/// of units at a time, and the LSTM's step on its sums while they are in the cache.
///
///     i, o, g, s = injected_t + sum_k W_k (m h_{t - d (K - 1 - A - k)})    k = 0 .. K - 1
///     c'_t = sigma(s) c_{t-1} + sigma(i) tanh(g),   h'_t = sigma(o) tanh(c'_t)
class TrellisStep {
 public:
  /// Throws deq::Error for shapes that do not fit.
  explicit TrellisStep(TrellisContext context);

  /// z (B, T, 2 H), h and c -> f(z) (B, T, 2 H). Differentiable, twice as well. A row's result does
  /// not depend on the number of rows or threads. Throws deq::Error, here and in backward, where
  /// something of the context was written in place after this was made.
  at::Tensor operator()(const at::Tensor& z) const;

  /// The same as a Map, whose series leaves out what is done, and so do its products with the
  /// Jacobian's transpose.
  Map map() const;

  const TrellisContext& context() const;

 private:
  struct Bound;
  bool on_cpu(const at::Tensor& z) const;
  at::Tensor taped(const at::Tensor& z, TrellisKept kept) const;
  Map::Linearised linearise(const at::Tensor& z) const;

  std::shared_ptr<const Bound> bound_;
};

/// The plain reference, from LibTorch's operators.
at::Tensor trellis_step_reference(const at::Tensor& z, const TrellisContext& context);

}  // namespace deq::ops
