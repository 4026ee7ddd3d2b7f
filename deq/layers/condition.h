// Layers that a condition of their own defines, an optimum instead of z = f(z, x): solved and
// differentiated as that allows. To a model they are cells like others, widths, weights and a name;
// only their layer knows that there is no f.
#pragma once

#include "deq/layers/layer.h"

namespace deq {

/// How a condition is met, and its adjoint solved where that takes steps.
struct ConditionOptions {
  StopRule stop, adjoint;
  std::function<void(const Report&)> on_adjoint;  ///< as Forward's; may be empty
};

/// What the numbers of a state are.
enum class StateKind : uint8_t {
  Chances,  ///< in [0, 1]: how true a symbol is, or, of one for each place, that it is the second
  Scores    ///< any: the largest is the answer
};

/// What has widths, weights and a name as a cell has, and finds its state itself.
class ConditionCell : public Cell {
 public:
  /// x (B, T, X), or (B, H, W, X): numbers in [0, 1] that are given, -1 for those that are not. z
  /// alike, D wide, with its tape when gradients are on, and how it was found. Throws deq::Error
  /// for shapes that do not fit; never for non-convergence.
  virtual Equilibrated solve(const at::Tensor& x, const ConditionOptions& how) = 0;

  /// Throws deq::Error where its problems cannot have so many places.
  virtual void check_places(int64_t) const {}

  virtual StateKind state_kind() const = 0;
  /// Of scores: what a softmax multiplies them by.
  virtual double sharpness() const { return 1; }

  /// Told the loss of each step of training, in nats for each target, once it has been made or
  /// skipped.
  virtual void hear(double) {}

  /// Throws deq::Error: there is no f.
  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) final;
  bool injects() const final { return true; }

 protected:
  virtual const char* name() const = 0;
};

/// Whether these options make a ConditionCell.
bool has_condition(const CellOptions& cell);

/// A ConditionCell as a layer. Its report is of the condition, its adjoint's of what it is
/// differentiated by.
class ConditionLayer final : public Layer {
 public:
  using Layer::Layer;

  LayerOutput forward(const at::Tensor& x, const Histories& histories,
                      const ForwardOptions& how) override;
};

/// `weight` for one call, taped: once its gradient is there, `on_adjoint` hears what `latest`
/// holds.
at::Tensor heard(const at::Tensor& weight,
                 const std::shared_ptr<std::shared_ptr<LatestReport>>& latest,
                 const std::function<void(const Report&)>& on_adjoint);

}  // namespace deq
