#pragma once

#include "deq/cells/energy_terms.h"
#include "deq/cells/linear.h"
#include "deq/ops/group_step.h"

namespace deq {

/// The energy beside the cell `groups` (groups.h): of each place p and symbol s, with means over
/// the groups that p is in,
///
///     h = s(W z_{p,s} + W' mean_{s'} z_{p,s'} + sum_k W_k mean_{q in k(p)} z_{q,s} + U x + b)
///     E(z, x) = |z|^2 / 2 + sum_{p,s} <v, s(A h + c)>
///
/// and like it the same for all places and symbols: exchanged alike, they have the same energy.
struct EnergyGroups {
  static constexpr const char* name = "groups";
  int64_t width = 16;
  int64_t inner = 64;
  std::string groups = "row+column,box";
  Activation activation = Activation::Softplus;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "features of a place and symbol", between(1, 1 << 16));
    field("inner", self.inner, "units of h", between(1, 1 << 20));
    field("groups", self.groups,
          "kinds of groups: row, column, box, all, or drawn; '+' shares weights");
    field("activation", self.activation, "s; with second derivatives: not relu");
  }

  std::shared_ptr<EnergyTerm> make(const CellPlace& place, int64_t dimensions) const;
};

/// E of x (B, T, S width) or (B, H, W, S width) of S symbols.
class EnergyGroupsTerm final : public EnergyTerm {
 public:
  /// Throws deq::Error without symbols, and for kinds that nobody knows.
  EnergyGroupsTerm(const EnergyGroups& options, int64_t symbols);

  EnergyOf bind(const at::Tensor& x) override;
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions) const override;
  int64_t width() const override { return symbols_ * options_.width; }
  int64_t symbols() const override { return symbols_; }

 private:
  EnergyGroups options_;
  int64_t symbols_;
  std::shared_ptr<Linear> inject_, state_, place_, mix_;
  std::vector<std::shared_ptr<Linear>> kinds_;  // W_k, those that are shared once
  at::Tensor weight_;                           // v
};

}  // namespace deq
