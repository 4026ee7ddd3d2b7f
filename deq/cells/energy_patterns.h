#pragma once

#include "deq/cells/energy_terms.h"
#include "deq/cells/linear.h"

namespace deq {

/// A modern Hopfield network in each place (Ramsauer et al. 2021; layers/energy.h has one for any
/// z), with x as a field:
///
///     E(z, x) = |z|^2 / 2 - log(sum_k exp(beta <p_k, z>)) / beta - <U x, z>
///
/// A step of 1 without field is attention over the patterns p: z <- P^T softmax(beta P z).
struct EnergyPatterns {
  static constexpr const char* name = "hopfield";
  int64_t width = 32;
  int64_t patterns = 64;
  double beta = 1;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "features of a place", between(1, 1 << 16));
    field("patterns", self.patterns, "stored, learned", between(1, 1 << 20));
    field("beta", self.beta, "inverse temperature: how sharply one pattern is chosen", above(0));
  }

  std::shared_ptr<EnergyTerm> make(const CellPlace& place, int64_t dimensions) const;
};

/// E of x (B, T, width) or (B, H, W, width), each place for itself.
class EnergyPatternsTerm final : public EnergyTerm {
 public:
  explicit EnergyPatternsTerm(const EnergyPatterns& options);

  EnergyOf bind(const at::Tensor& x) override;
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions) const override;
  int64_t width() const override { return options_.width; }

 private:
  EnergyPatterns options_;
  std::shared_ptr<Linear> inject_, patterns_;
};

}  // namespace deq
