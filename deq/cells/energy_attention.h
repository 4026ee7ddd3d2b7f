#pragma once

#include "deq/cells/energy_terms.h"
#include "deq/cells/linear.h"

namespace deq {

/// Attention as an energy, after the Energy Transformer (Hoover et al. 2023): over all places t of
/// a sequence or grid, with y = z / sqrt(1 + mean(z^2)) and p_t sines of the place,
///
///     q_t = Q y_t + Q' p_t,  k_t = K y_t + K' p_t                  of each head, d features
///     E(z, x) = |z|^2 / 2 - sqrt(d) sum_t log(sum_u exp(<q_t, k_u> / sqrt(d)))
///               + sum_t <v, s(A s(W z_t + U x_t + b) + c)>
struct EnergyAttention {
  static constexpr const char* name = "attention";
  int64_t width = 32;
  int64_t heads = 4;
  int64_t inner = 64;
  Activation activation = Activation::Softplus;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "features of a place; a multiple of the heads, and of 4",
          between(4, 1 << 16));
    field("heads", self.heads, "of attention", between(1, 1 << 10));
    field("inner", self.inner, "units of s(W z + U x + b)", between(1, 1 << 20));
    field("activation", self.activation, "s; with second derivatives: not relu");
  }

  std::shared_ptr<EnergyTerm> make(const CellPlace& place, int64_t dimensions) const;
};

/// E of sequences x (B, T, width) or grids (B, H, W, width).
class EnergyAttentionTerm final : public EnergyTerm {
 public:
  explicit EnergyAttentionTerm(const EnergyAttention& options);

  EnergyOf bind(const at::Tensor& x) override;
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions) const override;
  int64_t width() const override { return options_.width; }

 private:
  EnergyAttention options_;
  std::shared_ptr<Linear> query_, key_, query_place_, key_place_, state_, inject_, mix_;
  at::Tensor weight_;  // v
};

}  // namespace deq
