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
T row_loss(T* row, int64_t n, int64_t target, bool gradient) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  const T at_target = row[target];
  auto tops = hn::Set(d, row[0]);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) tops = hn::Max(tops, hn::LoadU(d, row + i));
  T top = hn::GetLane(hn::MaxOfLanes(d, tops));
  for (; i < n; ++i) top = row[i] > top ? row[i] : top;
  const T own = std::exp(at_target - top);
  row[target] = -std::numeric_limits<T>::infinity();
  const T others = exp_and_sum<T>(row, nullptr, top, n);
  if (gradient) {
    const T share = T(1) / (own + others);
    for (i = 0; i < n; ++i) row[i] *= share;
    row[target] = -others * share;
  }
  return own > T(kSmallRatio) ? std::log1p(others / own)
                              : std::log(own + others) - (at_target - top);
}

float row_loss_float(float* r, int64_t n, int64_t t, bool g) { return row_loss(r, n, t, g); }
double row_loss_double(double* r, int64_t n, int64_t t, bool g) { return row_loss(r, n, t, g); }

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(row_loss_float);
HWY_EXPORT(row_loss_double);

float softmax_row_loss(float* row, int64_t n, int64_t target, bool gradient) {
  return HWY_DYNAMIC_DISPATCH(row_loss_float)(row, n, target, gradient);
}
double softmax_row_loss(double* row, int64_t n, int64_t target, bool gradient) {
  return HWY_DYNAMIC_DISPATCH(row_loss_double)(row, n, target, gradient);
}
}  // namespace deq::ops
#endif
