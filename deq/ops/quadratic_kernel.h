// The kernels of quadratic programs (layers/quadratic_program.h): a few samples at a time, each in
// a lane of its own, or one sample whose rows fill the lanes. Nothing of one sample depends on the
// others. All numbers are double and scaled (layers/scaled_program.h).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace deq::ops {

/// Numbers in memory that is aligned for vectors.
struct AlignedNumbers {
  double* data = nullptr;
  int64_t size = 0;
  AlignedNumbers() = default;
  explicit AlignedNumbers(int64_t numbers);  // holds anything
  AlignedNumbers(AlignedNumbers&& other) noexcept;
  AlignedNumbers& operator=(AlignedNumbers&& other) noexcept;
  ~AlignedNumbers();
};

/// Minimise c/2 z'Qz + q'z where Az = b and Gz <= h: n variables, p and m rows. Each matrix
/// contiguous by rows, Q symmetric.
struct QuadraticShape {
  int64_t n = 0, p = 0, m = 0;
};
/// See QuadraticShape.
struct QuadraticData {
  const double *Q = nullptr, *q = nullptr, *A = nullptr, *b = nullptr, *G = nullptr, *h = nullptr;
  double curvature = 1;  ///< c
};

/// How far a kernel came with a sample.
enum class Found : uint8_t {
  Exact,    ///< the solution, to rounding, no row weakly active, all multipliers unique
  Tight,    ///< a row is weakly active, or active rows depend on each other
  Stopped,  ///< the interior point is near a solution, but its active rows were not found
  Open,     ///< the steps ran out
  Concave,  ///< Q has a direction of negative curvature
};

/// A sample's state, in and out: z (n), nu (p), lam (m), s (m), active (m).
struct QuadraticState {
  double *z = nullptr, *nu = nullptr, *lam = nullptr, *s = nullptr;
  uint8_t* active = nullptr;
  Found found = Found::Open;
  double residual = 0;  ///< of the optimality conditions, where the solution was found
  int64_t steps = 0, factorisations = 0;
};

/// When the parts of a solve end.
struct QuadraticLimits {
  int64_t steps = 60;
  double gap = 1e-10;      ///< the interior point ends at this product of slack and multiplier
  double residual = 1e-8;  ///< and at this residual
  double weak = 1e-9;      ///< slacks and multipliers below this share of their size are none
  /// Of what is none: a sign that is wrong; and what may be none by its row's own size, where it is
  /// measured by the sample's.
  static constexpr double wrong = 1e-2, perhaps = 4;
  static constexpr double exact = 1e-10;  ///< of a row's own terms, left over
  int64_t exchanges = 4;                  ///< of active rows, before a sample is given up
  bool warm = false;   ///< begin with the rows that `active` holds, and no interior point
  bool polish = true;  ///< else the interior point is all
  double concave =
      1e-10;  ///< of Q, as a share of its largest entry, is none; negative: not looked at
};

/// The factors of the reduced system of some samples,
///
///     K = [Q C'; C 0],  C = [A; G's active rows],
///
/// by Q + C'C = U'U, W = U^-T C', W'W = V'V (masked where a sample's row is not active).
struct ReducedFactors {
  QuadraticShape shape;
  int64_t samples = 0;        ///< in lanes; 1: the row's numbers stand in them
  std::vector<int64_t> rows;  ///< of G, those that are active in any sample
  AlignedNumbers memory;
};

/// Samples that one call of the kernels takes: for at most 32 variables those of a vector's lanes,
/// else 1.
int64_t samples_at_once(const QuadraticShape& shape);

/// count <= samples_at_once: solves each sample.
void solve_quadratic(const QuadraticShape& shape, const QuadraticData* data, int64_t count,
                     const QuadraticLimits& limits, QuadraticState* states,
                     ReducedFactors& factors);

/// A right hand side (z, nu, lam) and the solution w of K w = g, in its place; lam of rows that are
/// not active is 0. `residual`: |K w - g| / |g|, largest entries.
struct ReducedRight {
  double *z = nullptr, *nu = nullptr, *lam = nullptr;
  double residual = 0;
};
void solve_reduced(const ReducedFactors& factors, int64_t count, ReducedRight* right);

}  // namespace deq::ops
