// Sums over one line of numbers, compiled once per SIMD target (Highway's convention for headers).
#if defined(DEQ_OPS_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_LINES_INL_H_
#undef DEQ_OPS_LINES_INL_H_
#else
#define DEQ_OPS_LINES_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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
  T total = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < n; ++i) total += x[i] * y[i];
  return total;
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
