// A layer takes what a model reads of its input, and its own past, to a state z: the equilibrium of
// a cell, or the last level of a stack of cells.
#pragma once

#include "deq/cells/cells.h"
#include "deq/layers/equilibrium.h"
#include "deq/layers/start.h"

namespace deq {

/// An equilibrium (depth 0), or an explicit network of so many levels.
struct DepthOptions {
  int64_t depth = 0;
  bool tied = true;
  bool injection = true;
  bool checkpointed = false;
  bool step_embedding = false;

  static void fields(auto& self, auto&& field) {
    field("depth", self.depth, "levels of an explicit network; 0: an equilibrium",
          between(0, 1 << 16));
    field("tied", self.tied, "its levels share one level's weights");
    field("injection", self.injection,
          "its levels see x (Transformer; false: z starts at x, as in Transformer-XL)");
    field("checkpointed", self.checkpointed,
          "keep every sqrt(depth)-th state for backward, evaluate the rest again");
    field("step_embedding", self.step_embedding,
          "add a learned vector to the state that each of the tied levels sees");
  }

  /// Cells with weights of their own.
  int64_t cells() const { return depth == 0 || tied ? 1 : depth; }
  /// Histories that a segment hands on: each level sees its own past.
  int64_t levels() const { return depth == 0 ? 1 : depth; }
};

/// What each level (or the one equilibrium) may see of the segments before; empty: nothing.
using Histories = std::vector<History>;

/// How a batch goes through a layer.
struct ForwardOptions {
  EquilibriumOptions equilibrium;
  int64_t history = 0;         ///< positions of history to keep for the next segment
  int64_t subsequence = 0;     ///< positions solved at a time; 0: all
  bool jacobian_loss = false;  ///< estimate it, differentiably
  bool rest_loss = false;      ///< of an equilibrium: evaluate f once more, at z, with its tape
  bool states = false;         ///< keep those that a taped chain of plain steps leads through
  StartOptions start = {};     ///< of an equilibrium, where no state is given
  at::Tensor z0 = {};          ///< the state that it starts from; of an explicit network too
  int64_t free_steps = 0;      ///< plain steps from there, without a tape, before the solve
  double noise = 0;            ///< f sees z + noise N(0, 1), anew at each evaluation
  std::function<void(const Report&)> on_adjoint;
};

/// One batch through a layer.
struct LayerOutput {
  at::Tensor z;  ///< (B, T, D) the equilibrium or the last level, with its tape when gradients
                 ///< are on
  Histories histories;       ///< for the next segment
  Report report;             ///< of the forward solve; of an explicit network only its evaluations
  at::Tensor jacobian_loss;  ///< |J|_F^2 / n at z, when asked for
  at::Tensor rest_loss;      ///< (B) |f(z) - z|^2 / |f(z)|^2, when asked for
  /// When asked for: of levels, and of an unrolled gradient, the state after each step, with its
  /// tape; of any other gradient z alone.
  std::vector<at::Tensor> states = {};
};

/// Owns its cells; a model registers them under the names that `cell_name` gives.
class Layer {
 public:
  /// Throws deq::Error for a cell and a depth that do not go together.
  Layer(const CellOptions& cell, const DepthOptions& depth, int64_t symbols);
  virtual ~Layer() = default;

  /// x (B, T, X). Throws deq::Error for histories that do not fit, and for options that the layer's
  /// cells cannot follow.
  virtual LayerOutput forward(const at::Tensor& x, const Histories& histories,
                              const ForwardOptions& how) = 0;

  /// The levels for this x, as `forward` applies them; of an equilibrium the one f(., x) that it
  /// solves.
  std::vector<Bound> bind(const at::Tensor& x, const Histories& histories);

  const std::vector<std::shared_ptr<Cell>>& cells() const { return cells_; }
  Cell& cell() const { return *cells_.front(); }  ///< the first; all are alike
  std::string cell_name(size_t index) const;
  /// (depth, D), which a model registers as `step_embedding`; undefined without them.
  virtual at::Tensor step_embedding() const { return {}; }

 protected:
  /// What `how` gives or says; or x where the cells do not see x besides.
  at::Tensor start(const at::Tensor& x, const ForwardOptions& how) const;

  DepthOptions depth_;

 private:
  std::vector<std::shared_ptr<Cell>> cells_;
};

/// An equilibrium, or a stack: what `depth` says; of a model that answers among so many symbols.
std::unique_ptr<Layer> make_layer(const CellOptions& cell, const DepthOptions& depth,
                                  int64_t symbols);

/// Throws deq::Error where a solver's scope, forward or of the adjoint, needs a causal cell and the
/// cell is not.
void check_scope(const EquilibriumOptions& options, bool causal_cell);

}  // namespace deq
