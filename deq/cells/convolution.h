#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cell.h"

namespace deq {

enum class ConvolutionNorm { None, Rms };
template <>
struct Names<ConvolutionNorm> {
  static constexpr const char* values[] = {"none", "rms"};
};

/// A block of convolutions with its input added again at every step, over sequences x (B, T, X) or
/// grids (B, H, W, X) (Bansal, Schwarzschild et al. 2022: deep thinking with recall):
///
///     y = W_0 * z + W_x * x,                        y <- r(y + W_b * relu(W_a * y)), ...
///     f(z) = y,  r = relu                           norm none: the published block
///     f(z) = N(z + y),  r the identity              norm rms: N an RMS norm without weights
///
/// `convolutions` counts W_0 and the pairs W_a, W_b behind it. Zeros stand around; no biases. What
/// one evaluation moves, however it is solved, moves kernel / 2 squares for each convolution: far
/// things need many evaluations.
struct Convolution {
  static constexpr const char* name = "conv";
  int64_t width = 32;
  int64_t kernel = 3;
  int64_t convolutions = 3;
  int64_t dimensions = 1;
  ConvolutionNorm norm = ConvolutionNorm::Rms;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "channels", between(1, 1 << 20));
    field("kernel", self.kernel, "places a side that a convolution reads; odd", between(1, 255));
    field("convolutions", self.convolutions, "in a row; odd", between(1, 255));
    field("dimensions", self.dimensions, "of the places: 1, a sequence; 2, a grid; as the task's",
          between(1, 2));
    field("norm", self.norm, "none: as published, with ReLU; rms: bounded states");
  }

  bool is_causal() const { return false; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Of sequences or of grids, as its options say; without a history, since problems stand alone.
class ConvolutionCell : public Cell {
 public:
  explicit ConvolutionCell(const Convolution& options);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return false; }
  bool injects() const override { return true; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  int64_t input_width() const override { return options_.width; }
  int64_t state_width() const override { return options_.width; }

 private:
  Convolution options_;
  at::Tensor inject_;                // (D, D, K), of grids (D, D, K, K)
  std::vector<at::Tensor> weights_;  // the same, W_0 first
};

}  // namespace deq
