// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/attention_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// After foreach_target, as Highway asks.
#include <hwy/contrib/math/math-inl.h>

#include <cmath>

#include "deq/ops/attention_simd.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// s[j] += p[j] over n numbers; returns the largest.
template <class T>
T add_and_max(T* s, const T* p, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  T largest = s[0] + p[0];
  auto top = hn::Set(d, largest);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const auto v = hn::Add(hn::LoadU(d, s + j), hn::LoadU(d, p + j));
    hn::StoreU(v, d, s + j);
    top = hn::Max(top, v);
  }
  largest = hn::GetLane(hn::MaxOfLanes(d, top));
  for (; j < n; ++j) {
    s[j] += p[j];
    largest = s[j] > largest ? s[j] : largest;
  }
  return largest;
}

/// s[j] = exp(s[j] - shift); returns the sum.
template <class T>
T exp_and_sum(T* s, T shift, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto minus = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const auto e = hn::Exp(d, hn::Sub(hn::LoadU(d, s + j), minus));
    hn::StoreU(e, d, s + j);
    sum = hn::Add(sum, e);
  }
  T total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; j < n; ++j) total += s[j] = std::exp(s[j] - shift);
  return total;
}

template <class T>
void scale(T* s, T factor, int64_t n) {
  for (int64_t j = 0; j < n; ++j) s[j] *= factor;
}

template <class T>
void forward(const SoftmaxBlock<T>& b) {
  for (int64_t i = 0; i < b.queries; ++i) {
    T* s = b.scores + i * b.keys;
    const int64_t first = b.first(i), n = b.last(i) - first;
    const T* p = b.position + i * b.rows + (b.queries - 1 - i) + first;
    const T top = add_and_max(s + first, p, n);
    const T sum = exp_and_sum(s + first, top, n);
    scale(s + first, T(1) / sum, n);
    for (int64_t j = 0; j < first; ++j) s[j] = 0;
    for (int64_t j = first + n; j < b.keys; ++j) s[j] = 0;
    if (!b.mask) continue;
    const T* m = b.mask + i * b.keys;
    T* out = b.dropped + i * b.keys;
    for (int64_t j = 0; j < b.keys; ++j) out[j] = s[j] * m[j];
  }
}

/// gradient[j] = a[j] (gradient[j] - sum), also into `copy`.
template <class T>
void score_gradient(const T* a, T* gradient, T sum, T* copy, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto minus = hn::Set(d, sum);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const auto v = hn::Mul(hn::LoadU(d, a + j), hn::Sub(hn::LoadU(d, gradient + j), minus));
    hn::StoreU(v, d, gradient + j);
    hn::StoreU(v, d, copy + j);
  }
  for (; j < n; ++j) copy[j] = gradient[j] = a[j] * (gradient[j] - sum);
}

template <class T>
T dot(const T* a, const T* b, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  auto sum = hn::Zero(d);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes)
    sum = hn::MulAdd(hn::LoadU(d, a + j), hn::LoadU(d, b + j), sum);
  T total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; j < n; ++j) total += a[j] * b[j];
  return total;
}

template <class T>
void backward(const SoftmaxBlock<T>& b, T* gradient, T* shifted) {
  for (int64_t i = 0; i < b.queries; ++i) {
    const T* a = b.scores + i * b.keys;
    T* g = gradient + i * b.keys;
    T* row = shifted + i * b.rows;
    const int64_t first = b.first(i), n = b.last(i) - first;
    if (b.mask) {
      const T* m = b.mask + i * b.keys;
      for (int64_t j = first; j < first + n; ++j) g[j] *= m[j];
    }
    const int64_t start = b.queries - 1 - i + first;
    for (int64_t j = 0; j < start; ++j) row[j] = 0;
    for (int64_t j = start + n; j < b.rows; ++j) row[j] = 0;
    score_gradient(a + first, g + first, dot(a + first, g + first, n), row + start, n);
    for (int64_t j = 0; j < first; ++j) g[j] = 0;
    for (int64_t j = first + n; j < b.keys; ++j) g[j] = 0;
  }
}

void forward_float(const SoftmaxBlock<float>& b) { forward(b); }
void forward_double(const SoftmaxBlock<double>& b) { forward(b); }
void backward_float(const SoftmaxBlock<float>& b, float* g, float* s) { backward(b, g, s); }
void backward_double(const SoftmaxBlock<double>& b, double* g, double* s) { backward(b, g, s); }

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(forward_float);
HWY_EXPORT(forward_double);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_double);

void softmax_forward(const SoftmaxBlock<float>& b) { HWY_DYNAMIC_DISPATCH(forward_float)(b); }
void softmax_forward(const SoftmaxBlock<double>& b) { HWY_DYNAMIC_DISPATCH(forward_double)(b); }
void softmax_backward(const SoftmaxBlock<float>& b, float* g, float* s) {
  HWY_DYNAMIC_DISPATCH(backward_float)(b, g, s);
}
void softmax_backward(const SoftmaxBlock<double>& b, double* g, double* s) {
  HWY_DYNAMIC_DISPATCH(backward_double)(b, g, s);
}
}  // namespace deq::ops
#endif
