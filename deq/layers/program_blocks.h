// One quadratic program as the programs that it falls apart into.
#pragma once

#include <memory>
#include <vector>

#include "deq/layers/exact_program.h"

namespace deq {

/// Blocks are the variables that Q or a row ties together, directly or through others. Each is
/// scaled and solved by itself, so that how large the numbers of one are means nothing for another:
/// what is 0 beside 1e12 in one block may be all that there is in the next.
class ProgramBlocks {
 public:
  /// `data`: the program's own numbers, none of them scaled, of which Q's symmetric part counts
  /// and `curvature` does not. `left_out`: rows of G that are none, as those whose h is infinite.
  ProgramBlocks(const ops::QuadraticShape& shape, const ops::QuadraticData& data,
                const std::vector<int64_t>& left_out);

  /// Never throws for what the program is. As solve_exactly(), in the program's own numbers,
  /// without a factor: solve_adjoint() has it. The reason is the worst of any block's; where that
  /// says that there is no solution, numbers are 0 and the certificate is that block's.
  ExactAnswer solve(const ops::QuadraticLimits& limits, const Degenerate& degenerate);

  /// Whether the latest solve() left what gradients need.
  bool differentiable() const { return differentiable_; }
  /// w of K w = g in place, in the program's own numbers; `right.residual` as there. Only where
  /// differentiable().
  void solve_adjoint(Dependent how, ops::ReducedRight& right) const;

 private:
  struct Block;

  void divide(const ops::QuadraticData& data, const std::vector<uint8_t>& present);
  void fill(Block& block, const ops::QuadraticData& data) const;

  ops::QuadraticShape shape_;
  std::vector<std::shared_ptr<Block>> blocks_;
  bool differentiable_ = false;
};

}  // namespace deq
