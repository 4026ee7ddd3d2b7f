// The only virtual interface: a cell f(z, x) over sequences. A cell cannot tell that it is being
// solved.
#pragma once

#include <torch/nn/module.h>

#include "deq/base/map.h"

namespace deq {

/// What a segment may see of those before it; undefined tensors: nothing. Never carries a tape.
struct History {
  at::Tensor z;  ///< (B, M, D) past equilibria
  at::Tensor x;  ///< (B, M, X) the inputs they belong to

  int64_t length() const { return z.defined() ? z.size(1) : 0; }
};

class Cell : public torch::nn::Module {
 public:
  /// f(., x) with everything that does not depend on z computed once: the injected input, the
  /// history's projections, normalised weights and, in training mode, the dropout masks. x (B, T,
  /// X); the map takes and gives (B, T, D). Gradients reach x and the parameters, not the history.
  virtual Map bind(const at::Tensor& x, const History& history) = 0;

  /// Whether position t of f(z, x) depends on positions <= t only.
  virtual bool causal() const = 0;

  /// The history for the segment after this one: at most `length` positions.
  virtual History extend(const History& history, const at::Tensor& x, const at::Tensor& z,
                         int64_t length) const = 0;

  /// Weights ~ N(0, std), normalised or not; biases 0.
  virtual void initialise(double std) = 0;

  virtual int64_t input_width() const = 0;  ///< X
  virtual int64_t state_width() const = 0;  ///< D
};

}  // namespace deq
