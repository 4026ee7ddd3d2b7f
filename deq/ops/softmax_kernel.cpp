// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/softmax_kernel.cpp"
#include "deq/ops/softmax_kernel.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "deq/ops/lines-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A target's share below this is taken from the logits: the others' sum over it might overflow.
constexpr double kSmallRatio = 1e-6;

/// The target's term stands apart from the others': 1 + others would round a small loss away, and
/// its gradient with it.
template <class T>
SoftmaxRow<T> row_of(T* row, const T* bias, int64_t n, int64_t target) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto tops = hn::Set(d, row[0] + bias[0]);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::Add(hn::LoadU(d, row + i), hn::LoadU(d, bias + i));
    hn::StoreU(v, d, row + i);
    tops = hn::Max(tops, v);
  }
  T top = hn::GetLane(hn::MaxOfLanes(d, tops));
  for (; i < n; ++i) {
    row[i] += bias[i];
    top = row[i] > top ? row[i] : top;
  }
  const T at_target = row[target], own = std::exp(at_target - top);
  row[target] = -std::numeric_limits<T>::infinity();
  const T others = exp_and_sum<T>(row, nullptr, top, n);
  row[target] = -others;
  const T loss =
      own > T(kSmallRatio) ? std::log1p(others / own) : std::log(own + others) - (at_target - top);
  return {loss, T(1) / (own + others)};
}

SoftmaxRow<float> row_float(float* r, const float* b, int64_t n, int64_t t) {
  return row_of(r, b, n, t);
}
SoftmaxRow<double> row_double(double* r, const double* b, int64_t n, int64_t t) {
  return row_of(r, b, n, t);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(row_float);
HWY_EXPORT(row_double);

SoftmaxRow<float> softmax_row(float* row, const float* bias, int64_t n, int64_t target) {
  return HWY_DYNAMIC_DISPATCH(row_float)(row, bias, n, target);
}
SoftmaxRow<double> softmax_row(double* row, const double* bias, int64_t n, int64_t target) {
  return HWY_DYNAMIC_DISPATCH(row_double)(row, bias, n, target);
}
}  // namespace deq::ops
#endif
