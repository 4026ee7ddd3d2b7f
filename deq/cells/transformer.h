#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cell.h"
#include "deq/cells/kept.h"
#include "deq/cells/linear.h"
#include "deq/ops/transformer_block.h"

namespace deq {

using NormPlace = ops::NormPlace;
template <>
struct Names<NormPlace> {
  static constexpr const char* values[] = {"post", "pre", "pre-published"};
};

/// Shares of units dropped; one mask per solve, the same for every step and (hidden) every
/// position.
struct TransformerDropout {
  double hidden = 0.0;
  double attention = 0.0;

  static void fields(auto& self, auto&& field) {
    field("hidden", self.hidden, "share of block outputs and inner units dropped", half_open(0, 1));
    field("attention", self.attention, "share of attention probabilities dropped", half_open(0, 1));
  }
};

/// What a DEQ-Transformer's cell is told; TransformerCell has the equations.
struct Transformer {
  static constexpr const char* name = "transformer";
  int64_t width = 128;
  int64_t heads = 4;
  int64_t inner = 512;
  NormPlace norm = NormPlace::Post;
  int64_t window = 0;
  bool causal = true;
  bool weight_norm = true;
  int64_t dimensions = 1;
  TransformerDropout dropout;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "D, features of the state", between(2, 1 << 20));
    field("heads", self.heads, "attention heads; divides width", between(1, 1 << 20));
    field("inner", self.inner, "units of the feed-forward part", between(1, 1 << 24));
    field("norm", self.norm, "where the layer norms stand");
    field("window", self.window, "keys this near are attended to; 0: all", between(0, 1 << 30));
    field("causal", self.causal, "attend to earlier positions only");
    field("weight_norm", self.weight_norm, "normalise the weights of f");
    field("dimensions", self.dimensions, "of the places: 1, a sequence; 2, a grid; as the task's",
          between(1, 2));
    field("dropout", self.dropout);
  }

  bool is_causal() const { return causal; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// The DEQ-Transformer's cell (Bai, Kolter, Koltun 2019): one Transformer-XL block with its input
/// injected.
///
///     u = U x + c                                  injected into queries, keys and values
///     q, k, v = W_qkv N([history, z]) + u          N: identity (post) or layer norm (pre)
///     y = z + O attention(q, k, v) ;               post: y <- LN(y)
///     f(z) = LN(y + FF(y))                         post
///          = y + FF(LN(y))                         pre
///          = n + FF(n), n = LN(y)                  pre-published: as the authors' code has it
///     FF(y) = W_2 relu(W_1 y + b_1) + b_2,  layer norms without parameters
///
/// Over grids (B, H, W, D) it has no order and no history, and relative positions in both
/// directions: half of the sinusoids are of the rows between two places, half of the columns.
class TransformerCell : public Cell {
 public:
  /// Throws deq::Error where width is odd or not divisible by heads. Without `injection` there is
  /// no U x + c: a level of Transformer-XL.
  explicit TransformerCell(const Transformer& options, bool injection = true);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return options_.causal; }
  bool injects() const override { return inject_ != nullptr; }
  int64_t input_width() const override { return options_.width; }
  int64_t state_width() const override { return options_.width; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  bool read_weights(WeightType type) override;
  std::unique_ptr<Decoder> decode(const std::vector<History>& pasts, int64_t length,
                                  const InputOf& input) override;

  /// Attention scores rounded to float, as the published code does: to repeat its outputs in
  /// double.
  void round_scores(bool on) { float_scores_ = on; }

 private:
  struct Shared;
  struct Level;
  struct InForce;
  InForce weights_in_force(WeightType type = WeightType::Exact) const;
  struct Fixed;
  class Decoding;
  Fixed fixed() const;
  std::vector<at::Tensor> what_it_is() const;
  at::Tensor fixed_positions(Fixed& fixed, int64_t count, int64_t past) const;
  at::Tensor positions(const InForce& weights, int64_t positions, int64_t past,
                       const at::Tensor& mask) const;
  at::Tensor grid_positions(const InForce& weights, int64_t rows, int64_t columns,
                            const at::Tensor& mask) const;
  std::shared_ptr<const Shared> share(const at::Tensor& x, int64_t past, int64_t columns = 0);
  at::Tensor injection(const at::Tensor& x) const;
  std::vector<Bound> bind_grids(const at::Tensor& x, const std::vector<History>& levels);

  Transformer options_;
  bool float_scores_ = false;
  std::shared_ptr<Linear> inject_;  // null without injection
  std::shared_ptr<Linear> qkv_, positions_, output_, inner_, outer_;
  at::Tensor content_bias_, position_bias_;     // (H, D / H)
  at::Tensor frequency_;                        // (D / 2), a buffer
  WeightType weight_type_ = WeightType::Exact;  // of `fixed_`
  std::shared_ptr<Kept<Fixed>> fixed_;
};

/// Sinusoids of the distances first, first - 1, ..., rows of (count, 2 F) for F frequencies: sines,
/// then cosines.
at::Tensor sinusoids(int64_t first, int64_t count, const at::Tensor& frequency);

}  // namespace deq
