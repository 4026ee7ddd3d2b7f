#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cell.h"
#include "deq/cells/linear.h"

namespace deq {

/// A residual block of the temporal convolutional network (Bai, Kolter, Koltun 2018): what the
/// equilibrium models are compared with on the copy-memory task. A level of an explicit network;
/// level l has dilation 2^l.
///
///     f(z) = relu(z + g(g(z))),   g(y)_t = m relu(b + sum_k W_k y_{t - 2^l (K - 1 - k)})
///
/// with dropout masks m, and zeros before the text begins.
struct Tcn {
  static constexpr const char* name = "tcn";
  int64_t width = 32;
  int64_t kernel = 8;
  double dropout = 0.0;
  bool weight_norm = true;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "channels", between(1, 1 << 20));
    field("kernel", self.kernel, "K, positions that a convolution reads", between(2, 4096));
    field("dropout", self.dropout, "share of channels dropped, for all positions", half_open(0, 1));
    field("weight_norm", self.weight_norm, "normalise the weights of the convolutions");
  }

  bool is_causal() const { return true; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Its history is the positions that its two convolutions can see: 2 * 2^l (K - 1) of its input,
/// fewer only where the text has not had so many.
class TcnCell : public Cell {
 public:
  /// Throws deq::Error for a level above 20: a dilation of more than a million positions.
  TcnCell(const Tcn& options, int64_t level);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  void forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const override;
  bool causal() const override { return true; }
  bool injects() const override { return false; }
  void initialise(double std) override;
  int64_t input_width() const override { return options_.width; }
  int64_t state_width() const override { return options_.width; }

 private:
  struct Level;

  Tcn options_;
  int64_t dilation_;
  std::shared_ptr<Linear> first_, second_;  // rows (D), columns (D, K): as a convolution's
};

}  // namespace deq
