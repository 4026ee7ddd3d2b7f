#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace deq {

/// The largest eigenvalue of |A| (numbers' absolute values), between two numbers that are proved.
struct PerronFrobenius {
  double lower = 0, upper = 0;
  /// (n) double > 0, of each irreducible piece its eigenvector, from which the bounds are.
  at::Tensor vector;
  /// Of each row, the number of its piece, of those that depend on nothing first.
  std::vector<int64_t> piece;
};

/// lambda_pf(|A|) of A (n, n), in double (Collatz 1942, Wielandt 1950): for any v > 0 it lies
/// between the least and the largest of (|A| v)_i / v_i, of an irreducible |A|; of any A it is the
/// largest of those of its irreducible pieces (Tarjan 1972). v is found by power iteration on |A| +
/// s I, then by inverse iteration from above (Noda 1971), which converges quadratically where the
/// former is slow. Both bounds are moved by what their sums may have been rounded, so that they
/// hold for the numbers of A as they are. Throws deq::Error for an A that is not square or not
/// finite.
///
/// x = s(A x + B u) is well posed for every s with slopes in [-1, 1], and plain iteration converges
/// to it, where lambda_pf(|A|) < 1 (El Ghaoui et al. 2019).
PerronFrobenius perron_frobenius(const at::Tensor& A);

}  // namespace deq
