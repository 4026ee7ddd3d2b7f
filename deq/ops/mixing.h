// Coordinate descent over unit vectors, as MAXSAT's relaxation is solved by: the mixing method
// (Wang, Chang and Kolter 2017). The energy of v_1 .. v_n in R^k is
//   sum_{i<j} c_ij v_i . v_j + sum_i b_i . v_i,
// and v_i's own best place is -g_i / |g_i|, g_i = b_i + sum_{j != i} c_ij v_j. A sweep puts one
// after the other there. In blocks of six, the products of a whole block come first, as one product
// of matrices, and what its vectors mean to each other is put right as they move: the same iterates
// to rounding (mixing_sweep_reference does them one by one).
#pragma once

#include <cstdint>
#include <vector>

namespace deq::ops {

/// Vectors whose products are computed together.
inline constexpr int64_t kMixingBlock = 6;

/// Rows of vectors are `width` numbers, of which those behind the rank are zero.
template <class T>
struct Mixing {
  int64_t n = 0, width = 0;
  const T* couplings = nullptr;  // packed: see pack_couplings
  const T* base = nullptr;       // (n, width), b
  const T* floor = nullptr;      // (n), at least 0: where |g_i| is no more, v_i is left as it is

  int64_t numbers() const { return n * width; }
  /// c_ij.
  T coupling(int64_t i, int64_t j) const {
    const int64_t first = i / kMixingBlock * kMixingBlock;
    return couplings[first * n + j * kMixingBlock + i - first];
  }
};

/// Numbers in packed couplings of n vectors.
inline int64_t packed_couplings(int64_t n) {
  return (n + kMixingBlock - 1) / kMixingBlock * kMixingBlock * n;
}

/// Rows and columns `which` of the symmetric C, rows `row` numbers apart, times `scale`, with a
/// diagonal of zeros: blocks of six rows, in which the six numbers of a column stand together.
template <class T>
void pack_couplings(const T* C, int64_t row, const std::vector<int64_t>& which, T scale, T* out);

/// One sweep, vector by vector, over V (n, width). Returns sum_i |v_i' - v_i|^2; `moved` (n, width)
/// gets the differences.
template <class T>
double mixing_sweep_reference(const Mixing<T>& problem, T* V, T* moved);

/// C V + base (n, width), which may be null: zeros.
template <class T>
void mixing_product_reference(const Mixing<T>& problem, const T* V, const T* base, T* out);

}  // namespace deq::ops
