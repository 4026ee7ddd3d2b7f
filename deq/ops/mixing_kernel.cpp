// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/mixing_kernel.cpp"
#include "deq/ops/mixing_kernel.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "deq/ops/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

/// Up to six rows of packed couplings times one vector's width of V, plus base.
template <int R, class T>
HWY_INLINE void narrow_tile(const T* HWY_RESTRICT a, const T* HWY_RESTRICT b, int64_t width,
                            int64_t n, const T* base, T* c) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const V zero = hn::Zero(d);
  V c0 = zero, c1 = zero, c2 = zero, c3 = zero, c4 = zero, c5 = zero;
  for (int64_t p = 0; p < n; ++p, a += kMixingBlock, b += width) {
    const V row = hn::LoadU(d, b);
    c0 = hn::MulAdd(hn::Set(d, a[0]), row, c0);
    if constexpr (R > 1) c1 = hn::MulAdd(hn::Set(d, a[1]), row, c1);
    if constexpr (R > 2) c2 = hn::MulAdd(hn::Set(d, a[2]), row, c2);
    if constexpr (R > 3) c3 = hn::MulAdd(hn::Set(d, a[3]), row, c3);
    if constexpr (R > 4) c4 = hn::MulAdd(hn::Set(d, a[4]), row, c4);
    if constexpr (R > 5) c5 = hn::MulAdd(hn::Set(d, a[5]), row, c5);
  }
  const auto store = [&](int64_t i, V v) HWY_ATTR {
    if (base) v = hn::Add(v, hn::LoadU(d, base + i * width));
    hn::StoreU(v, d, c + i * width);
  };
  store(0, c0);
  if constexpr (R > 1) store(1, c1);
  if constexpr (R > 2) store(2, c2);
  if constexpr (R > 3) store(3, c3);
  if constexpr (R > 4) store(4, c4);
  if constexpr (R > 5) store(5, c5);
}

template <class T>
HWY_INLINE void narrow_tile_of(int64_t rows, const T* a, const T* b, int64_t width, int64_t n,
                               const T* base, T* c) {
  switch (rows) {
    case 1:
      return narrow_tile<1>(a, b, width, n, base, c);
    case 2:
      return narrow_tile<2>(a, b, width, n, base, c);
    case 3:
      return narrow_tile<3>(a, b, width, n, base, c);
    case 4:
      return narrow_tile<4>(a, b, width, n, base, c);
    case 5:
      return narrow_tile<5>(a, b, width, n, base, c);
    default:
      return narrow_tile<6>(a, b, width, n, base, c);
  }
}

/// Rows first .. of C V + base, to out, whose rows follow one another from its beginning.
template <class T>
HWY_INLINE void block_product(const Mixing<T>& p, int64_t first, const T* V, const T* base,
                              T* out) {
  const int64_t rows = std::min(kMixingBlock, p.n - first), W = panel_width<T>();
  const T* packed = p.couplings + first * p.n;
  const T* from = base ? base + first * p.width : nullptr;
  int64_t j = 0;
  for (; j + W <= p.width; j += W)
    tile_of<T>(rows, Strided<T>{packed, 1, kMixingBlock}, V + j, p.width, p.n, out + j, p.width,
               Base<T>{from, p.width}.at(0, j), W);
  if (j < p.width)
    narrow_tile_of<T>(rows, packed, V + j, p.width, p.n, from ? from + j : nullptr, out + j);
}

template <class T>
void product_rows(const Mixing<T>& p, const T* V, const T* base, T* out) {
  for (int64_t first = 0; first < p.n; first += kMixingBlock)
    block_product(p, first, V, base, out + first * p.width);
}

template <class T>
HWY_INLINE T row_dot(const T* a, const T* b, int64_t width) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto sum = hn::Zero(d);
  for (int64_t c = 0; c < width; c += lanes)
    sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// to = f(a, to), a vector at a time; rows are whole vectors.
template <class T, class F>
HWY_INLINE void row_combine(const T* a, int64_t width, T* to, const F& f) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  for (int64_t c = 0; c < width; c += lanes)
    hn::StoreU(f(d, hn::LoadU(d, a + c), hn::LoadU(d, to + c)), d, to + c);
}

template <class T>
HWY_INLINE void row_zero(int64_t width, T* to) {
  std::fill(to, to + width, T(0));
}

/// v = -g / |g|; returns |v' - v|^2. `moved` gets v' - v.
template <class T>
HWY_INLINE T move_row(const T* g, T norm, int64_t width, T* v, T* moved) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  const auto scale = hn::Set(d, T(-1) / norm);
  auto sum = hn::Zero(d);
  for (int64_t c = 0; c < width; c += lanes) {
    const auto next = hn::Mul(scale, hn::LoadU(d, g + c));
    const auto step = hn::Sub(next, hn::LoadU(d, v + c));
    sum = hn::MulAdd(step, step, sum);
    hn::StoreU(next, d, v + c);
    hn::StoreU(step, d, moved + c);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T>
double sweep(const Mixing<T>& p, T* V, T* moved, T* block) {
  double total = 0;
  for (int64_t first = 0; first < p.n; first += kMixingBlock) {
    const int64_t rows = std::min(kMixingBlock, p.n - first);
    block_product(p, first, V, p.base, block);
    for (int64_t r = 0; r < rows; ++r) {
      const T* g = block + r * p.width;
      T* step = moved + (first + r) * p.width;
      const T norm = std::sqrt(row_dot(g, g, p.width));
      if (!(norm > p.floor[first + r])) {
        row_zero(p.width, step);
        continue;
      }
      total += double(move_row(g, norm, p.width, V + (first + r) * p.width, step));
      const T* couplings = p.couplings + first * p.n + (first + r) * kMixingBlock;
      for (int64_t q = r + 1; q < rows; ++q) {
        const T c = couplings[q];
        row_combine(step, p.width, block + q * p.width, [c](auto d, auto s, auto x) HWY_ATTR {
          return hn::MulAdd(hn::Set(d, c), s, x);
        });
      }
    }
  }
  return total;
}

template <class T>
void to_unit(int64_t n, int64_t width, const T* otherwise, T* V) {
  for (int64_t i = 0; i < n; ++i, V += width, otherwise += width) {
    const T norm = std::sqrt(row_dot(V, V, width));
    if (!(norm > T(1e-3)) || !std::isfinite(norm)) {
      std::copy(otherwise, otherwise + width, V);
      continue;
    }
    const T scale = T(1) / norm;
    row_combine(V, width, V,
                [scale](auto d, auto x, auto) HWY_ATTR { return hn::Mul(hn::Set(d, scale), x); });
  }
}

template <class T>
double residual_rows(const Mixing<T>& p, const T* V, const T* G, T* norms) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  double total = 0;
  for (int64_t i = 0; i < p.n; ++i, V += p.width, G += p.width) {
    const T norm = std::sqrt(row_dot(G, G, p.width));
    norms[i] = norm > p.floor[i] ? norm : T(0);
    if (norms[i] == T(0)) continue;
    const auto scale = hn::Set(d, T(1) / norm);
    auto sum = hn::Zero(d);
    for (int64_t c = 0; c < p.width; c += lanes) {
      const auto off = hn::MulAdd(scale, hn::LoadU(d, G + c), hn::LoadU(d, V + c));
      sum = hn::MulAdd(off, off, sum);
    }
    total += double(hn::GetLane(hn::SumOfLanes(d, sum)));
  }
  return total;
}

template <class T>
double tangent(int64_t n, int64_t width, const T* V, const T* norms, const T* Y, T* Z) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  double total = 0;
  for (int64_t i = 0; i < n; ++i, V += width, Y += width, Z += width) {
    if (norms[i] == T(0)) {
      row_zero(width, Z);
      continue;
    }
    const auto along = hn::Set(d, -row_dot(Z, V, width)), norm = hn::Set(d, norms[i]);
    auto sum = hn::Zero(d);
    for (int64_t c = 0; c < width; c += lanes) {
      const auto y = hn::LoadU(d, Y + c);
      const auto across = hn::MulAdd(along, hn::LoadU(d, V + c), hn::LoadU(d, Z + c));
      const auto z = hn::MulAdd(norm, y, across);
      sum = hn::MulAdd(y, z, sum);
      hn::StoreU(z, d, Z + c);
    }
    total += double(hn::GetLane(hn::SumOfLanes(d, sum)));
  }
  return total;
}

template <class T>
double cg_step(int64_t n, int64_t width, double a, const T* P, const T* Q, const T* norms, T* X,
               T* R, double& scaled) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  const auto step = hn::Set(d, T(a));
  double total = 0;
  scaled = 0;
  for (int64_t i = 0; i < n; ++i, P += width, Q += width, X += width, R += width) {
    auto sum = hn::Zero(d);
    for (int64_t c = 0; c < width; c += lanes) {
      const auto r = hn::NegMulAdd(step, hn::LoadU(d, Q + c), hn::LoadU(d, R + c));
      sum = hn::MulAdd(r, r, sum);
      hn::StoreU(r, d, R + c);
      hn::StoreU(hn::MulAdd(step, hn::LoadU(d, P + c), hn::LoadU(d, X + c)), d, X + c);
    }
    const double row = double(hn::GetLane(hn::SumOfLanes(d, sum)));
    total += row;
    if (norms[i] != T(0)) scaled += row / double(norms[i]);
  }
  return total;
}

template <class T>
void cg_direction(int64_t n, int64_t width, double b, const T* R, const T* norms, T* P) {
  for (int64_t i = 0; i < n; ++i, R += width, P += width) {
    const T scale = norms[i] == T(0) ? T(0) : T(1) / norms[i], kept = T(b);
    row_combine(R, width, P, [=](auto d, auto r, auto p) HWY_ATTR {
      return hn::MulAdd(hn::Set(d, kept), p, hn::Mul(hn::Set(d, scale), r));
    });
  }
}

int64_t lanes_of_float() { return int64_t(hn::Lanes(hn::ScalableTag<float>())); }
int64_t lanes_of_double() { return int64_t(hn::Lanes(hn::ScalableTag<double>())); }

// HWY_EXPORT takes no templates.
#define DEQ_MIXING_FOR(T)                                                                          \
  double sweep_##T(const Mixing<T>& p, T* V, T* moved, T* block) {                                 \
    return sweep(p, V, moved, block);                                                              \
  }                                                                                                \
  void product_##T(const Mixing<T>& p, const T* V, const T* base, T* out) {                        \
    product_rows(p, V, base, out);                                                                 \
  }                                                                                                \
  void unit_##T(int64_t n, int64_t w, const T* otherwise, T* V) { to_unit(n, w, otherwise, V); }   \
  double residual_##T(const Mixing<T>& p, const T* V, const T* G, T* norms) {                      \
    return residual_rows(p, V, G, norms);                                                          \
  }                                                                                                \
  double tangent_##T(int64_t n, int64_t w, const T* V, const T* norms, const T* Y, T* Z) {         \
    return tangent(n, w, V, norms, Y, Z);                                                          \
  }                                                                                                \
  double cg_step_##T(int64_t n, int64_t w, double a, const T* P, const T* Q, const T* norms, T* X, \
                     T* R, double& scaled) {                                                       \
    return cg_step(n, w, a, P, Q, norms, X, R, scaled);                                            \
  }                                                                                                \
  void cg_direction_##T(int64_t n, int64_t w, double b, const T* R, const T* norms, T* P) {        \
    cg_direction(n, w, b, R, norms, P);                                                            \
  }
DEQ_MIXING_FOR(float)
DEQ_MIXING_FOR(double)
#undef DEQ_MIXING_FOR

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(lanes_of_float);
HWY_EXPORT(lanes_of_double);

template <>
int64_t mixing_width<float>(int64_t rank) {
  const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_of_float)();
  return (rank + lanes - 1) / lanes * lanes;
}
template <>
int64_t mixing_width<double>(int64_t rank) {
  const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_of_double)();
  return (rank + lanes - 1) / lanes * lanes;
}

#define DEQ_MIXING_FOR(T)                                                                       \
  HWY_EXPORT(sweep_##T);                                                                        \
  HWY_EXPORT(product_##T);                                                                      \
  HWY_EXPORT(unit_##T);                                                                         \
  HWY_EXPORT(residual_##T);                                                                     \
  HWY_EXPORT(tangent_##T);                                                                      \
  HWY_EXPORT(cg_step_##T);                                                                      \
  HWY_EXPORT(cg_direction_##T);                                                                 \
  double mixing_sweep(const Mixing<T>& p, T* V, T* moved, T* block) {                           \
    return HWY_DYNAMIC_DISPATCH(sweep_##T)(p, V, moved, block);                                 \
  }                                                                                             \
  void mixing_product(const Mixing<T>& p, const T* V, const T* base, T* out) {                  \
    HWY_DYNAMIC_DISPATCH(product_##T)(p, V, base, out);                                         \
  }                                                                                             \
  void unit_rows(int64_t n, int64_t w, const T* otherwise, T* V) {                              \
    HWY_DYNAMIC_DISPATCH(unit_##T)(n, w, otherwise, V);                                         \
  }                                                                                             \
  double mixing_residual(const Mixing<T>& p, const T* V, const T* G, T* norms) {                \
    return HWY_DYNAMIC_DISPATCH(residual_##T)(p, V, G, norms);                                  \
  }                                                                                             \
  double tangent_rows(int64_t n, int64_t w, const T* V, const T* norms, const T* Y, T* Z) {     \
    return HWY_DYNAMIC_DISPATCH(tangent_##T)(n, w, V, norms, Y, Z);                             \
  }                                                                                             \
  double conjugate_step(int64_t n, int64_t w, double a, const T* P, const T* Q, const T* norms, \
                        T* X, T* R, double& scaled) {                                           \
    return HWY_DYNAMIC_DISPATCH(cg_step_##T)(n, w, a, P, Q, norms, X, R, scaled);               \
  }                                                                                             \
  void conjugate_direction(int64_t n, int64_t w, double b, const T* R, const T* norms, T* P) {  \
    HWY_DYNAMIC_DISPATCH(cg_direction_##T)(n, w, b, R, norms, P);                               \
  }
DEQ_MIXING_FOR(float)
DEQ_MIXING_FOR(double)
#undef DEQ_MIXING_FOR

}  // namespace deq::ops
#endif
