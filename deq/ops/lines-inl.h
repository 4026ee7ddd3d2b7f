// What is done to one line of numbers, compiled once per SIMD target (Highway's convention for
// headers).
#if defined(DEQ_OPS_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_LINES_INL_H_
#undef DEQ_OPS_LINES_INL_H_
#else
#define DEQ_OPS_LINES_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The first n < Lanes(d) numbers at p, then zeros.
template <class D>
HWY_INLINE hn::Vec<D> load_first(D d, const hn::TFromD<D>* p, int64_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN hn::TFromD<D> rest[hn::MaxLanes(d)] = {};
  std::copy(p, p + n, rest);
  return hn::Load(d, rest);
#else
  return hn::MaskedLoad(hn::FirstN(d, size_t(n)), d, p);
#endif
}

/// Writes the first n < Lanes(d) numbers of v to p.
template <class D>
HWY_INLINE void store_first(D d, hn::Vec<D> v, hn::TFromD<D>* p, int64_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN hn::TFromD<D> rest[hn::MaxLanes(d)];
  hn::Store(v, d, rest);
  std::copy(rest, rest + n, p);
#else
  hn::BlendedStore(v, hn::FirstN(d, size_t(n)), d, p);
#endif
}

template <class T>
T sum(const T* x, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sums = hn::Add(sums, hn::LoadU(d, x + i));
  T total = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < n; ++i) total += x[i];
  return total;
}

template <class T>
T dot(const T* x, const T* y, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    sums = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sums);
  if (i < n) sums = hn::MulAdd(load_first(d, x + i, n - i), load_first(d, y + i, n - i), sums);
  return hn::GetLane(hn::SumOfLanes(d, sums));
}

/// exp(x), but NaN of NaN.
template <class D, class V>
HWY_INLINE V exp_of(D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

/// s[j] = exp(s[j] + p[j] - shift), or without p; returns the sum.
template <class T>
T exp_and_sum(T* s, const T* p, T shift, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  const auto minus = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    auto v = hn::LoadU(d, s + j);
    if (p) v = hn::Add(v, hn::LoadU(d, p + j));
    const auto e = exp_of(d, hn::Sub(v, minus));
    hn::StoreU(e, d, s + j);
    sum = hn::Add(sum, e);
  }
  if (j < n) {
    auto v = load_first(d, s + j, n - j);
    if (p) v = hn::Add(v, load_first(d, p + j, n - j));
    const auto e = exp_of(d, hn::Sub(v, minus));
    store_first(d, e, s + j, n - j);
    sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, size_t(n - j)), e));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// to[i] = f(x[i]), f of whole vectors; `to` may be x.
template <class T, class F>
HWY_INLINE void map_line(const T* x, int64_t n, T* to, const F& f) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(f(d, hn::LoadU(d, x + i)), d, to + i);
  if (i < n) store_first(d, f(d, load_first(d, x + i, n - i)), to + i, n - i);
}

/// to[i] = 1 / (1 + exp(-x[i])), from exp(-|x|), which cannot overflow; NaN stays.
template <class T>
void sigmoid_line(const T* x, int64_t n, T* to) {
  map_line(x, n, to, [](auto d, auto v) HWY_ATTR {
    const auto one = hn::Set(d, T(1)), e = hn::Exp(d, hn::Neg(hn::Abs(v)));
    const auto above = hn::IfThenElse(hn::Ge(v, hn::Zero(d)), one, e);
    return hn::IfThenElse(hn::IsNaN(v), v, hn::Div(above, hn::Add(one, e)));
  });
}

/// to[i] = tanh(x[i]); NaN stays.
template <class T>
void tanh_line(const T* x, int64_t n, T* to) {
  map_line(x, n, to,
           [](auto d, auto v) HWY_ATTR { return hn::IfThenElse(hn::IsNaN(v), v, hn::Tanh(d, v)); });
}

template <class T>
void add_line(const T* x, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] += x[i];
}

template <class T>
void multiply_line(const T* x, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] *= x[i];
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
