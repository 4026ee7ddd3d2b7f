// What the kernels of attention share, compiled once per SIMD target (Highway's convention for
// headers).
#if defined(DEQ_OPS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_ATTENTION_INL_H_
#undef DEQ_OPS_ATTENTION_INL_H_
#else
#define DEQ_OPS_ATTENTION_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "deq/ops/lines-inl.h"
#include "deq/ops/strided.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// s[j] += p[j] over n numbers; returns the largest.
template <class T>
T add_and_max(T* s, const T* p, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto top = hn::Set(d, s[0] + p[0]);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const auto v = hn::Add(hn::LoadU(d, s + j), hn::LoadU(d, p + j));
    hn::StoreU(v, d, s + j);
    top = hn::Max(top, v);
  }
  if (j < n) {
    const auto v = hn::Add(load_first(d, s + j, n - j), load_first(d, p + j, n - j));
    store_first(d, v, s + j, n - j);
    top = hn::IfThenElse(hn::FirstN(d, size_t(n - j)), hn::Max(top, v), top);
  }
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

/// out = (q + bias) * factor, (rows, d) contiguous.
template <class T>
void biased(const Strided<T>& q, const T* bias, T factor, int64_t rows, int64_t d, T* out) {
  for (int64_t i = 0; i < rows; ++i, out += d) {
    const T* from = q.data + i * q.row;
    for (int64_t c = 0; c < d; ++c) out[c] = (from[c] + bias[c]) * factor;
  }
}

/// Pieces of scratch memory, one behind the other, each on its own cache line.
/// Without memory it only counts.
template <class T>
struct Pieces {
  T* memory;
  int64_t taken = 0;
  T* take(int64_t n) {
    T* piece = memory ? memory + taken : nullptr;
    const int64_t line = 64 / int64_t(sizeof(T));
    taken += (n + line - 1) / line * line;
    return piece;
  }
};

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
