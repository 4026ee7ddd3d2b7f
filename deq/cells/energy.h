#pragma once

#include "deq/cells/energy_terms.h"

namespace deq {

/// A step down an energy that x shapes (implicit reasoning by energies: Du, Li, Tenenbaum, Mordatch
/// 2022): f(z) = z - eta grad_z E(z, x), whose equilibria are E's stationary points and whose
/// residual is eta |grad E|. `of` is E. Every solver, start and gradient applies; of those made for
/// it, `--solver descent` takes back steps that raise E, and `--gradient-solver
/// conjugate-residual` uses that the Jacobian is symmetric.
///
/// In training, where a tape is recorded, each sample's eta is drawn anew for each solve, between
/// step / step_spread and step * step_spread, evenly in its logarithm.
struct Energy {
  static constexpr const char* name = "energy";
  EnergyTermOptions of;
  double step = 0.25;
  double step_spread = 1;
  int64_t dimensions = 1;

  static void fields(auto& self, auto&& field) {
    field("of", self.of, "E(z, x)");
    field("step", self.step, "eta: z - eta grad E(z)", above(0));
    field("step_spread", self.step_spread, "in training eta is up to so many times more or less",
          between(1, 100));
    field("dimensions", self.dimensions, "of the places: 1, a sequence; 2, a grid; as the task's",
          between(1, 2));
  }

  bool is_causal() const { return false; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Of sequences x (B, T, X) or grids (B, H, W, X); without a history: problems stand alone.
class EnergyCell : public Cell {
 public:
  EnergyCell(const Energy& options, const CellPlace& place);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return false; }
  bool injects() const override { return true; }
  void initialise(double std) override { of_->initialise(std); }
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  int64_t symbols() const override { return of_->symbols(); }
  int64_t input_width() const override { return of_->width(); }
  int64_t state_width() const override { return of_->width(); }

 private:
  at::Tensor eta(const at::Tensor& x) const;

  Energy options_;
  std::shared_ptr<EnergyTerm> of_;
};

}  // namespace deq
