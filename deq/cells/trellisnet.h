// The DEQ-TrellisNet's cell (Bai, Kolter, Koltun 2019): one level of a Trellis network (Bai,
// Kolter, Koltun, ICLR 2019) with LSTM gates. A state is (h, c), each H = hidden + output wide.
//
//   u_t = c_U + sum_k U_k x_{t - (K - 1 - k)}                        injected, k = 0 .. K - 1
//   i, o, g, s = u_t + b + sum_k W_k h_{t - d (K - 1 - k)}           dilation d
//   c'_t = sigma(s) c_{t-1} + sigma(i) tanh(g),   h'_t = sigma(o) tanh(c'_t)
//
// In both directions, k = 0 .. 2 K - 2: as many positions ahead are read as before, and c goes from
// left to right as it did. Before and behind the text x, h and c are zero.
#pragma once

#include <algorithm>

#include "deq/base/fields.h"
#include "deq/cells/cell.h"
#include "deq/cells/kept.h"
#include "deq/cells/linear.h"
#include "deq/ops/trellis_step.h"

namespace deq {

/// Shares dropped; one mask per solve.
struct TrellisNetDropout {
  double hidden = 0.0;
  double weight = 0.0;

  static void fields(auto& self, auto&& field) {
    field("hidden", self.hidden, "share of h's features dropped, for all positions",
          half_open(0, 1));
    field("weight", self.weight, "share of the convolutions' weights dropped (DropConnect)",
          half_open(0, 1));
  }
};

/// What a DEQ-TrellisNet's cell is told; TrellisNetCell has the equations.
struct TrellisNet {
  static constexpr const char* name = "trellisnet";
  int64_t hidden = 200;
  int64_t output = 100;
  int64_t input = 0;
  int64_t kernel = 2;
  int64_t dilation = 1;
  bool causal = true;
  bool weight_norm = true;
  TrellisNetDropout dropout;

  static void fields(auto& self, auto&& field) {
    field("hidden", self.hidden, "features of h that stay inside", between(1, 1 << 20));
    field("output", self.output, "features of h that the softmax reads, besides",
          between(1, 1 << 20));
    field("input", self.input, "X, features of x; 0: as many as output", between(0, 1 << 20));
    field("kernel", self.kernel, "K, positions that the convolutions read", between(1, 4096));
    field("causal", self.causal, "read earlier positions only; false: K - 1 to either side");
    field("dilation", self.dilation, "distance of the positions that h's convolution reads",
          between(1, 1 << 20));
    field("weight_norm", self.weight_norm, "normalise the weights of both convolutions");
    field("dropout", self.dropout);
  }

  bool is_causal() const { return causal; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Keeps the last max(1, d (K - 1)) states and K - 1 inputs as its history, whatever length is
/// asked for: with the usual K = 2 one state. A history of a single state that should be longer is
/// repeated, and inputs that it lacks are zero, as in the published code.
class TrellisNetCell : public Cell {
 public:
  /// Throws deq::Error for a kernel that reads nothing ahead in both directions.
  explicit TrellisNetCell(const TrellisNet& options);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  at::Tensor output(const at::Tensor& z) const override;
  void forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const override;
  bool causal() const override { return options_.causal; }
  bool injects() const override { return true; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  bool read_weights(WeightType type) override;
  std::unique_ptr<Decoder> decode(const std::vector<History>& pasts, int64_t length,
                                  const InputOf& input) override;
  int64_t input_width() const override {
    return options_.input > 0 ? options_.input : options_.output;
  }
  int64_t state_width() const override { return 2 * (options_.hidden + options_.output); }
  int64_t output_width() const override { return options_.output; }

 private:
  struct InForce;
  class Decoding;
  InForce weights_in_force(WeightType type = WeightType::Exact) const;
  /// Positions behind each that are read, and all that are.
  int64_t ahead() const { return options_.causal ? 0 : options_.kernel - 1; }
  int64_t taps() const { return options_.kernel + ahead(); }
  /// States before a segment that f reads.
  int64_t past_states() const {
    return std::max<int64_t>(1, options_.dilation * (options_.kernel - 1));
  }

  TrellisNet options_;
  std::shared_ptr<Linear> inject_, conv_;  // rows (4 H), columns (width, K): as a convolution's
  WeightType weight_type_ = WeightType::Exact;  // of `fixed_`
  std::shared_ptr<Kept<InForce>> fixed_;        // evaluation mode without a tape
};

}  // namespace deq
