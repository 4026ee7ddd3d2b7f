#pragma once

#include "deq/layers/layer.h"

namespace deq {

/// z* = f(z*, x) of one cell, differentiated as `EquilibriumOptions::gradient` says.
class EquilibriumLayer final : public Layer {
 public:
  using Layer::Layer;

  LayerOutput forward(const at::Tensor& x, const Histories& histories,
                      const ForwardOptions& how) override;
};

}  // namespace deq
