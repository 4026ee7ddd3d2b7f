// LSTM (Hochreiter and Schmidhuber 1997, with forget gates) and GRU (Cho et al. 2014) layers, by
// LibTorch: what the equilibrium models are compared with. A level of an explicit network: its
// state is its input, and f(z) the layer's output.
#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cell.h"

namespace deq {

/// What LSTM and GRU layers are told alike.
struct Recurrent {
  int64_t width = 128;
  double dropout = 0.0;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "units", between(1, 1 << 20));
    field("dropout", self.dropout, "share of the output's features dropped, for all positions",
          half_open(0, 1));
  }
  bool is_causal() const { return true; }
};
/// A layer of LSTM.
struct Lstm : Recurrent {
  static constexpr const char* name = "lstm";
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};
/// A layer of GRU.
struct Gru : Recurrent {
  static constexpr const char* name = "gru";
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Its history is one state: z (B, 1, 2 D) = (h, c) for an LSTM, (B, 1, D) for a GRU, as the last
/// call of f left it.
class RecurrentCell : public Cell {
 public:
  enum class Kind { Lstm, Gru };
  RecurrentCell(const Recurrent& options, Kind kind);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  void forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const override;
  bool causal() const override { return true; }
  bool injects() const override { return false; }
  void initialise(double std) override;
  int64_t input_width() const override { return options_.width; }
  int64_t state_width() const override { return options_.width; }

 private:
  struct Level;

  Recurrent options_;
  Kind kind_;
  std::vector<at::Tensor> weights_;  // input (G D, D), hidden (G D, D), their biases; G gates
};

}  // namespace deq
