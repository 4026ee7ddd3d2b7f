#pragma once

#include "deq/solvers/driver.h"

namespace deq {

/// Anderson acceleration, type II: the next iterate mixes the last `memory` ones so that the mixed
/// residual is least (Anderson 1965; Walker and Ni, SIAM J. Numer. Anal. 2011). With g_i = f(z_i) -
/// z_i,
///
///     alpha = argmin |sum_i alpha_i g_i|^2 + ridge sum_i alpha_i^2 |g_i|^2,  sum_i alpha_i = 1
///     z     = sum_i alpha_i (z_i + mixing g_i)
///
/// The ridge is relative: it weighs each iterate by its own residual, so that it never drowns the
/// newest ones, whatever the tolerance. Scope `causal` sums |.|^2 over positions s <= t with weight
/// decay^(t - s): position t's coefficients use everything it may see, and nothing that it may not.
/// Where mixtures shrink that sum by too little, a row takes plain steps for as long as these are
/// better.
struct Anderson {
  static constexpr const char* name = "anderson";
  int64_t memory = 8;
  double ridge = 1e-4;
  double mixing = 1.0;
  Scope scope = Scope::Sample;
  double decay = 0.95;

  static void fields(auto& self, auto&& field) {
    field("memory", self.memory, "past iterates that are mixed", between(1, 64));
    field("ridge", self.ridge, "relative ridge of the least-squares problem", at_least(0));
    field("mixing", self.mixing, "weight of the residual in the next iterate", left_open(0, 2));
    field("scope", self.scope, "whose residuals choose the coefficients");
    field("decay", self.decay, "weight of one position further back, in scope causal",
          between(0, 1));
  }

  Propose start(const Layout& layout) const;
  /// Iterates that are worth keeping: residuals that outnumber what a row may learn from are
  /// dependent, and their products would take more memory than they do.
  int64_t memory_for(const Layout& layout) const;
};

}  // namespace deq
