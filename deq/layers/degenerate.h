// What the gradient is where it is not unique.
#pragma once

#include <cstdint>

namespace deq {

/// A row of Gz <= h is weakly active where slack and multiplier are both 0 (below 1e-9 of their
/// size): z has two one-sided derivatives there.
struct Degenerate {
  enum class Kind : uint8_t { Inactive, Active, LeastNorm, Smoothed };
  Kind kind = Kind::LeastNorm;
  double kappa = 0;  ///< of Smoothed, in units of objective

  /// Weakly active rows are let go: the derivative on the side where they do not touch. Rows that
  /// depend on each other share their multipliers as in LeastNorm.
  static const Degenerate Inactive;
  /// Weakly active rows are held: the derivative along them. Of rows that depend on each other as
  /// many as are independent have gradients, the largest and then the first ones.
  static const Degenerate Active;
  /// Weakly active rows are held, which is the least of the two derivatives in the norm of Q; what
  /// rows that depend on each other leave open is of least norm (the pseudo-inverse).
  static const Degenerate LeastNorm;
  /// The derivative of the program whose constraints are a barrier: slack * multiplier = kappa for
  /// every row (in place of 0), for z, nu and lam of that program. Smooth, and wrong by about
  /// kappa. z, nu and lam are those of the program itself.
  static Degenerate Smoothed(double kappa);
};

inline constexpr Degenerate Degenerate::Inactive{Kind::Inactive, 0};
inline constexpr Degenerate Degenerate::Active{Kind::Active, 0};
inline constexpr Degenerate Degenerate::LeastNorm{Kind::LeastNorm, 0};
inline Degenerate Degenerate::Smoothed(double kappa) { return {Kind::Smoothed, kappa}; }

}  // namespace deq
