// Explicit networks of the same cells: L levels, each applied once, with the weights of one or of
// its own. What the equilibrium models are compared with.
#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cells.h"

namespace deq {

/// An equilibrium (depth 0), or an explicit network of so many levels.
struct DepthOptions {
  int64_t depth = 0;
  bool tied = true;
  bool injection = true;
  bool checkpointed = false;

  static void fields(auto& self, auto&& field) {
    field("depth", self.depth, "levels of an explicit network; 0: an equilibrium",
          between(0, 1 << 16));
    field("tied", self.tied, "its levels share one level's weights");
    field("injection", self.injection,
          "its levels see x (Transformer; false: z starts at x, as in Transformer-XL)");
    field("checkpointed", self.checkpointed,
          "keep every sqrt(depth)-th state for backward, evaluate the rest again");
  }

  /// Cells with weights of their own.
  int64_t cells() const { return depth == 0 || tied ? 1 : depth; }
  /// Histories that a segment hands on: each level sees its own past.
  int64_t levels() const { return depth == 0 ? 1 : depth; }
};

/// What each level (or the one equilibrium) may see of the segments before; empty: nothing.
using Histories = std::vector<History>;

/// What an explicit network gives: its last level, and how its histories go on.
struct ExplicitOutput {
  at::Tensor z;  ///< (B, T, D) of the last level
  Histories histories;
};

/// z <- f_1(z), ..., z <- f_L(z) from z0 (B, T, D), taped when gradients are on; `history`
/// positions of each level's input are kept for the next segment.
ExplicitOutput run_levels(const std::vector<Bound>& levels, const at::Tensor& z0, int64_t history,
                          bool checkpointed);

}  // namespace deq
