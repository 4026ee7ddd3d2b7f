// The product that the kernels share, C = A B with B in panels, compiled once per SIMD target
// (Highway's convention for headers: included again for each).
#if defined(DEQ_OPS_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_PRODUCT_INL_H_
#undef DEQ_OPS_PRODUCT_INL_H_
#else
#define DEQ_OPS_PRODUCT_INL_H_
#endif

#include <ATen/Parallel.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "deq/ops/lines-inl.h"
#include "deq/ops/panels.h"
#include "deq/ops/strided.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Columns of B side by side in a panel: two vectors.
template <class T>
HWY_INLINE int64_t panel_width() {
  return 2 * int64_t(hn::Lanes(hn::ScalableTag<T>()));
}

/// Numbers in the panels of B (k, n).
template <class T>
HWY_INLINE int64_t packed_size(int64_t k, int64_t n) {
  const int64_t W = panel_width<T>();
  return (n + W - 1) / W * W * k;
}

/// The first n <= 2 Lanes(d) numbers at `from`, then zeros, to two vectors at `to`.
template <class D>
HWY_INLINE void copy_to_panel(D d, const hn::TFromD<D>* HWY_RESTRICT from, int64_t n,
                              hn::TFromD<D>* HWY_RESTRICT to) {
  const int64_t lanes = int64_t(hn::Lanes(d));
  for (int64_t j = 0; j < 2 * lanes; j += lanes) {
    const int64_t left = n - j;
    hn::StoreU(left >= lanes ? hn::LoadU(d, from + j)
               : left > 0    ? load_first(d, from + j, left)
                             : hn::Zero(d),
               d, to + j);
  }
}

/// B (k, n) as panels of W columns, each (k, W) contiguous and `panel` numbers after the one before
/// it (at least k W); the last one filled up with zeros.
template <class T>
void pack(const Strided<T>& b, int64_t k, int64_t n, T* out, int64_t panel) {
  const hn::ScalableTag<T> d;
  const int64_t W = panel_width<T>();
  for (int64_t j = 0; j < n; j += W, out += panel) {
    const int64_t columns = n - j < W ? n - j : W;
    if (b.col == 1) {
      for (int64_t p = 0; p < k; ++p)
        copy_to_panel(d, b.data + p * b.row + j, columns, out + p * W);
    } else {
      for (int64_t c = 0; c < columns; ++c) {
        const T* from = b.data + (j + c) * b.col;
        for (int64_t p = 0; p < k; ++p) out[p * W + c] = from[p * b.row];
      }
      for (int64_t c = columns; c < W; ++c) {
        for (int64_t p = 0; p < k; ++p) out[p * W + c] = 0;
      }
    }
  }
}

/// The two vectors of a panel's row at b.
template <class D, class V>
HWY_INLINE void load_row(D d, const hn::TFromD<D>* HWY_RESTRICT b, V& b0, V& b1) {
  b0 = hn::LoadU(d, b);
  b1 = hn::LoadU(d, b + hn::Lanes(d));
}
template <class D, class V>
HWY_INLINE void load_row(D d, const Bfloat16Pair* HWY_RESTRICT b, V& b0, V& b1) {
  const hn::RebindToUnsigned<D> bits;
  const auto both = hn::LoadU(bits, b);
  b0 = hn::BitCast(d, hn::ShiftLeft<16>(both));
  b1 = hn::BitCast(d, hn::And(both, hn::Set(bits, 0xFFFF0000u)));
}

/// What a product is added to: entry (i, j) is data[i * row + j]. Nothing, without data; with row 0
/// one row for all, a bias.
template <class T>
struct Base {
  const T* data = nullptr;
  int64_t row = 0;

  Base at(int64_t i, int64_t j) const { return data ? Base{data + i * row + j, row} : Base{}; }
};

/// The first n numbers of v, plus those at `base` if there are any, to `to`.
template <class D, class V>
HWY_INLINE void store_sum(D d, V v, const hn::TFromD<D>* base, hn::TFromD<D>* to, int64_t n) {
  if (n >= int64_t(hn::Lanes(d))) {
    hn::StoreU(base ? hn::Add(v, hn::LoadU(d, base)) : v, d, to);
  } else if (n > 0) {
    store_first(d, base ? hn::Add(v, load_first(d, base, n)) : v, to, n);
  }
}

// Rows of C that are computed together: with two vectors each they fill the registers of AVX2.
constexpr int64_t kTileRows = 6;

/// R rows of one panel's product, of which the first `columns` count, all of them but in the last
/// panel; rows of the panel stand `b_row` elements apart.
template <int R, class T, class E>
HWY_INLINE void tile(const Strided<T>& a, const E* HWY_RESTRICT b, int64_t b_row, int64_t k, T* c,
                     int64_t c_row, const Base<T>& base, int64_t columns) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  using V = hn::Vec<decltype(d)>;
  const V zero = hn::Zero(d);
  V c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero, c31 = zero,
    c40 = zero, c41 = zero, c50 = zero, c51 = zero;
  const T* x = a.data;
  const int64_t row = a.row, col = a.col;
  for (int64_t p = 0; p < k; ++p, x += col, b += b_row) {
    V b0, b1;
    load_row(d, b, b0, b1);
    {
      const V v = hn::Set(d, x[0]);
      c00 = hn::MulAdd(v, b0, c00);
      c01 = hn::MulAdd(v, b1, c01);
    }
    if constexpr (R > 1) {
      const V v = hn::Set(d, x[row]);
      c10 = hn::MulAdd(v, b0, c10);
      c11 = hn::MulAdd(v, b1, c11);
    }
    if constexpr (R > 2) {
      const V v = hn::Set(d, x[2 * row]);
      c20 = hn::MulAdd(v, b0, c20);
      c21 = hn::MulAdd(v, b1, c21);
    }
    if constexpr (R > 3) {
      const V v = hn::Set(d, x[3 * row]);
      c30 = hn::MulAdd(v, b0, c30);
      c31 = hn::MulAdd(v, b1, c31);
    }
    if constexpr (R > 4) {
      const V v = hn::Set(d, x[4 * row]);
      c40 = hn::MulAdd(v, b0, c40);
      c41 = hn::MulAdd(v, b1, c41);
    }
    if constexpr (R > 5) {
      const V v = hn::Set(d, x[5 * row]);
      c50 = hn::MulAdd(v, b0, c50);
      c51 = hn::MulAdd(v, b1, c51);
    }
  }
  const auto store = [&](int64_t i, V v0, V v1) HWY_ATTR {
    T* to = c + i * c_row;
    const T* from = base.data ? base.data + i * base.row : nullptr;
    store_sum(d, v0, from, to, columns);
    store_sum(d, v1, from ? from + lanes : from, to + lanes, columns - lanes);
  };
  store(0, c00, c01);
  if constexpr (R > 1) store(1, c10, c11);
  if constexpr (R > 2) store(2, c20, c21);
  if constexpr (R > 3) store(3, c30, c31);
  if constexpr (R > 4) store(4, c40, c41);
  if constexpr (R > 5) store(5, c50, c51);
}

/// One row of the product of four panels, `panel` elements apart: a single row of one panel would
/// wait for its own sums, where four have enough of them on the way.
template <class T, class E>
HWY_INLINE void row_of_four(const Strided<T>& a, const E* HWY_RESTRICT b, int64_t panel, int64_t k,
                            T* c, const Base<T>& base) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  using V = hn::Vec<decltype(d)>;
  const V zero = hn::Zero(d);
  V c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero, c31 = zero;
  const T* x = a.data;
  for (int64_t p = 0; p < k; ++p, x += a.col, b += 2 * lanes / kNumbers<E>) {
    const V v = hn::Set(d, x[0]);
    V b0, b1;
    load_row(d, b, b0, b1);
    c00 = hn::MulAdd(v, b0, c00);
    c01 = hn::MulAdd(v, b1, c01);
    load_row(d, b + panel, b0, b1);
    c10 = hn::MulAdd(v, b0, c10);
    c11 = hn::MulAdd(v, b1, c11);
    load_row(d, b + 2 * panel, b0, b1);
    c20 = hn::MulAdd(v, b0, c20);
    c21 = hn::MulAdd(v, b1, c21);
    load_row(d, b + 3 * panel, b0, b1);
    c30 = hn::MulAdd(v, b0, c30);
    c31 = hn::MulAdd(v, b1, c31);
  }
  const auto store = [&](int64_t i, V v) HWY_ATTR {
    if (base.data) v = hn::Add(v, hn::LoadU(d, base.data + i * lanes));
    hn::StoreU(v, d, c + i * lanes);
  };
  store(0, c00);
  store(1, c01);
  store(2, c10);
  store(3, c11);
  store(4, c20);
  store(5, c21);
  store(6, c30);
  store(7, c31);
}

template <class T, class E>
HWY_INLINE void tile_of(int64_t rows, const Strided<T>& a, const E* b, int64_t b_row, int64_t k,
                        T* c, int64_t c_row, const Base<T>& base, int64_t columns) {
  switch (rows) {
    case 1:
      return tile<1>(a, b, b_row, k, c, c_row, base, columns);
    case 2:
      return tile<2>(a, b, b_row, k, c, c_row, base, columns);
    case 3:
      return tile<3>(a, b, b_row, k, c, c_row, base, columns);
    case 4:
      return tile<4>(a, b, b_row, k, c, c_row, base, columns);
    case 5:
      return tile<5>(a, b, b_row, k, c, c_row, base, columns);
    default:
      return tile<6>(a, b, b_row, k, c, c_row, base, columns);
  }
}

/// C (m, n) = A (m, k) B + base, which may be C itself; B in panels of T or of Bfloat16Pair,
/// `panel` numbers apart. The sum of every entry runs over k in one fixed order, whatever m and n
/// are: a row's result does not depend on the rows beside it.
template <class T, class E>
void product(int64_t m, int64_t n, int64_t k, const Strided<T>& a, const E* panels, int64_t panel,
             T* c, int64_t c_row, const Base<T>& base) {
  const int64_t W = panel_width<T>(), step = panel / kNumbers<E>;
  int64_t j = 0;
  for (; m == 1 && j + 4 * W <= n; j += 4 * W, panels += 4 * step)
    row_of_four(a, panels, step, k, c + j, base.at(0, j));
  for (; j < n; j += W, panels += step) {
    const int64_t columns = n - j < W ? n - j : W;
    for (int64_t i = 0; i < m; i += kTileRows)
      tile_of(std::min(m - i, kTileRows), a.down(i), panels, W / kNumbers<E>, k, c + i * c_row + j,
              c_row, base.at(i, j), columns);
  }
}

/// C = A B, or += with `add`.
template <class T>
void product(int64_t m, int64_t n, int64_t k, const Strided<T>& a, const T* panels, int64_t panel,
             T* c, int64_t c_row, bool add) {
  product(m, n, k, a, panels, panel, c, c_row, add ? Base<T>{c, c_row} : Base<T>{});
}

/// The same with B (k, n) as it is, rows `b_row` numbers apart; `rest` are k panel_width() numbers.
template <class T>
void plain_product(int64_t m, int64_t n, int64_t k, const Strided<T>& a, const T* b, int64_t b_row,
                   T* c, int64_t c_row, bool add, T* rest) {
  const int64_t W = panel_width<T>();
  const Base<T> base = add ? Base<T>{c, c_row} : Base<T>{};
  int64_t j = 0;
  for (; j + W <= n; j += W) {
    for (int64_t i = 0; i < m; i += kTileRows)
      tile_of(std::min(m - i, kTileRows), a.down(i), b + j, b_row, k, c + i * c_row + j, c_row,
              base.at(i, j), W);
  }
  if (j == n) return;
  pack<T>({b + j, b_row, 1}, k, n - j, rest, k * W);
  product<T>(m, n - j, k, a, rest, k * W, c + j, c_row, add);
}

/// The product with a weight, plus base.
template <class T>
void product(int64_t m, int64_t n, int64_t k, const Strided<T>& a, const Panels<T>& panels,
             int64_t panel, T* c, int64_t c_row, const Base<T>& base) {
  if constexpr (sizeof(T) == sizeof(Bfloat16Pair)) {
    if (panels.rounded) return product(m, n, k, a, panels.rounded, panel, c, c_row, base);
  }
  product(m, n, k, a, panels.exact, panel, c, c_row, base);
}

// Numbers of a weight from which on a product of a few rows is shared out, two halves that are each
// worth a thread's waking (5 to 10 us).
constexpr int64_t kWorthThreads = 1 << 16;

/// The product with a weight in panels that follow one another. Rows so few that one thread has
/// them all leave the others idle: there the columns are shared out. (Of rows in several blocks,
/// each is one thread's.)
template <class T>
void weight_product(int64_t rows, int64_t n, int64_t k, const T* x, const Panels<T>& panels, T* to,
                    const Base<T>& base) {
  const int64_t W = panel_width<T>(), group = 4 * W;
  const auto columns = [&](int64_t from, int64_t to_column) {
    product<T>(rows, to_column - from, k, {x, k, 1}, panels.after(from * k), k * W, to + from, n,
               base.at(0, from));
  };
  if (rows > kTileRows || n * k < kWorthThreads) return columns(0, n);
  at::parallel_for(0, (n + group - 1) / group, 1, [&](int64_t begin, int64_t end) {
    columns(begin * group, std::min(n, end * group));
  });
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
