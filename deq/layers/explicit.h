// Explicit networks of the same cells: L levels, each applied once, with the weights of one or of
// its own. What the equilibrium models are compared with.
#pragma once

#include "deq/layers/layer.h"

namespace deq {

/// z <- f_1(z), ..., z <- f_L(z); with step embeddings z <- f_l(z + e_l) (Dehghani et al. 2019,
/// Universal Transformers).
class ExplicitLayer final : public Layer {
 public:
  ExplicitLayer(const CellOptions& cell, const DepthOptions& depth, int64_t symbols);

  LayerOutput forward(const at::Tensor& x, const Histories& histories,
                      const ForwardOptions& how) override;
  at::Tensor step_embedding() const override { return steps_; }

 private:
  at::Tensor steps_;  // (L, D), undefined without
};

/// The same from z0 (B, T, D), taped when gradients are on; `history` positions of each level's
/// input are kept for the next segment.
LayerOutput run_levels(const std::vector<Bound>& levels, const at::Tensor& z0, int64_t history,
                       bool checkpointed);

}  // namespace deq
