// Monotone operator equilibria (Winston and Kolter, NeurIPS 2020):
//
//     f(z) = s(W z + U x + b),    W = (1 - m) I - A^T A + B - B^T
//
// Whatever A and B are, I - W has the symmetric part m I + A^T A, so that there is exactly one
// equilibrium, however large W's spectral radius is, and it moves by |U| |dx| / m at most. Plain
// iteration need not find it; splitting methods do (solvers/splitting.h), from any start.
#pragma once

#include "deq/base/fields.h"
#include "deq/cells/activation.h"
#include "deq/cells/cell.h"
#include "deq/cells/linear.h"
#include "deq/ops/affine.h"

namespace deq {

/// A fully connected cell, at each position by itself: a sequence is so many rows.
struct Monotone {
  static constexpr const char* name = "monotone";
  int64_t width = 87;
  int64_t input = 0;
  double margin = 1.0;
  Activation activation = Activation::Relu;
  int64_t direct = 64;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "D, features of the state", between(1, 1 << 16));
    field("input", self.input, "X, features of x; 0: as many as width", between(0, 1 << 20));
    field("margin", self.margin, "m, by which I - W is monotone", left_open(0, 1e6));
    field("activation", self.activation, "s, a proximal operator");
    field("direct", self.direct,
          "widths up to which the adjoint is solved by elimination, sample by sample; 0: none",
          between(0, 1 << 16));
  }

  bool is_causal() const { return true; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Without a history: nothing depends on other positions.
class MonotoneCell : public Cell {
 public:
  explicit MonotoneCell(const Monotone& options);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return true; }
  bool injects() const override { return true; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  int64_t input_width() const override { return options_.input ? options_.input : options_.width; }
  int64_t state_width() const override { return options_.width; }

  /// W (D, D), taped.
  at::Tensor weight() const;
  /// |U| / m: |z(x) - z(x')| <= that times |x - x'|, Euclidean norms at each position. In double.
  double sensitivity() const;

 private:
  Monotone options_;
  at::Tensor a_, b_;                // (D, D)
  std::shared_ptr<Linear> inject_;  // U (D, X) and b
};

/// W = (1 - m) I - A^T A + B - B^T of (n, n), differentiable; its bits do not depend on threads.
at::Tensor monotone_weight(const at::Tensor& A, const at::Tensor& B, double margin);

/// f(z) = s(W z + c) at every position, with all that solvers and gradients can use of its form:
/// products with the Jacobian, parts, and, with a `margin` > 0 by which I - W is monotone, the
/// resolvent. c (B, T, D); `direct` as in Monotone.
Map affine_equilibrium(const at::Tensor& W, const at::Tensor& c, Activation s, double margin,
                       int64_t direct);

}  // namespace deq
