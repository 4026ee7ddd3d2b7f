// What the cell `energy` descends: a scalar of a sample, smooth in its state. Terms with names are
// listed in energy_terms.cpp. To add one: its file, and its line there.
#pragma once

#include <torch/nn/module.h>

#include "deq/base/choice.h"
#include "deq/cells/activation.h"
#include "deq/cells/cell.h"
#include "deq/ops/affine.h"
#include "deq/ops/gradient_step.h"

namespace deq {

/// Every term holds |z|^2 / 2, beside parts that grow at most linearly: E has a minimum.
class EnergyTerm : public torch::nn::Module {
 public:
  /// E(., x) for x (B, T, width), or of a grid (B, H, W, width), and z alike. Gradients reach x and
  /// the parameters. Throws deq::Error for places that the term does not have.
  virtual EnergyOf bind(const at::Tensor& x) = 0;
  /// Weights ~ N(0, std); biases 0.
  virtual void initialise(double std) = 0;
  /// Floating-point operations of E's products, on so many samples of so many places.
  virtual double operations(int64_t batch, int64_t positions) const = 0;
  virtual int64_t width() const = 0;             ///< of x and z at one place
  virtual int64_t symbols() const { return 0; }  ///< as Cell::symbols
};

/// What a term's options can do.
struct EnergyTermMaker : Held<EnergyTermMaker> {
  template <class Options>
  struct Of;
  static const std::vector<Choice<EnergyTermMaker>>& known();

  /// Of places in a sequence (dimensions 1) or a grid (2). Throws deq::Error for options out of
  /// range.
  virtual std::shared_ptr<EnergyTerm> make(const CellPlace& place, int64_t dimensions) const = 0;
};

/// One of the terms.
using EnergyTermOptions = Choice<EnergyTermMaker>;

template <class Options>
struct EnergyTermMaker::Of final : HeldAs<EnergyTermMaker, Options> {
  using HeldAs<EnergyTermMaker, Options>::HeldAs;
  std::shared_ptr<EnergyTerm> make(const CellPlace& place, int64_t dimensions) const override {
    return this->value.make(place, dimensions);
  }
};

/// Throws deq::Error for an activation that has no second derivative.
void check_smooth(Activation activation);

/// y W^T + base over the places, for y (B, ..., k) and a base (n) or undefined, (B, ..., n): with
/// the same bits whatever samples stand beside it. The weight is laid out once for all evaluations.
at::Tensor by_place(const at::Tensor& y, const ops::AffineWeight& weight, const at::Tensor& base);

}  // namespace deq
