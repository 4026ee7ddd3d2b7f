#pragma once

#include "deq/base/fields.h"
#include "deq/cells/activation.h"
#include "deq/cells/cell.h"

namespace deq {

/// A monotone operator equilibrium of convolutions on a torus, over sequences x (B, T, X) or grids
/// (B, H, W, X) (Winston and Kolter, NeurIPS 2020; monotone.h has the fully connected one):
///
///     f(z) = s(W * z + U * x + b),  W = (1 - m) I - |g_0| A^T A + g_1 (B - B^T)
///
/// A and B kernels divided by their Frobenius norms, all convolutions circular. At each frequency W
/// is a matrix of its own, whose resolvent is an inverse of that size: what f, its adjoint and the
/// splitting methods take is a transform, these products, and the transform back.
struct MonotoneConvolution {
  static constexpr const char* name = "monotone-conv";
  int64_t width = 54;
  int64_t input = 0;
  int64_t kernel = 3;
  int64_t dimensions = 1;
  double margin = 1.0;
  Activation activation = Activation::Relu;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "D, channels of the state", between(1, 1 << 16));
    field("input", self.input, "X, channels of x; 0: as many as width", between(0, 1 << 20));
    field("kernel", self.kernel, "places a side that a convolution reads; odd", between(1, 255));
    field("dimensions", self.dimensions, "of the places: 1, a sequence; 2, a grid; as the task's",
          between(1, 2));
    field("margin", self.margin, "m, by which I - W is monotone", left_open(0, 1e6));
    field("activation", self.activation, "s, a proximal operator");
  }

  bool is_causal() const { return false; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Of sequences or of grids, as its options say; without a history.
class MonotoneConvolutionCell : public Cell {
 public:
  explicit MonotoneConvolutionCell(const MonotoneConvolution& options);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return false; }
  bool injects() const override { return true; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  int64_t input_width() const override { return options_.input ? options_.input : options_.width; }
  int64_t state_width() const override { return options_.width; }

 private:
  MonotoneConvolution options_;
  at::Tensor a_, b_;   // (D, D, K), of grids (D, D, K, K)
  at::Tensor gains_;   // (2), g
  at::Tensor inject_;  // (D, X, K), of grids (D, X, K, K)
  at::Tensor bias_;    // (D)
};

}  // namespace deq
