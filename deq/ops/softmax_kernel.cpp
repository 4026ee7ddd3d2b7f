// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/softmax_kernel.cpp"
#include "deq/ops/softmax_kernel.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/ops/lines-inl.h"
#include "deq/ops/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A target's share below this is taken from the logits: the others' sum over it might overflow.
constexpr double kSmallRatio = 1e-6;

/// Runs f(first word, words) over all of them, kSoftmaxWords at a time.
template <class T, class F>
void by_words(const SoftmaxRows<T>& s, const F& f) {
  for (int64_t v = 0; v < s.words; v += kSoftmaxWords) f(v, std::min(kSoftmaxWords, s.words - v));
}

/// top[r] = max(top[r], logit + bias) over some words, r over whole panels.
template <class T>
void take_tops(const T* logits, int64_t columns, const T* bias, int64_t words, int64_t rows,
               T* top) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  for (int64_t r = 0; r < rows; r += 2 * lanes) {
    auto t0 = hn::LoadU(d, top + r), t1 = hn::LoadU(d, top + r + lanes);
    const T* at = logits + r;
    for (int64_t v = 0; v < words; ++v, at += columns) {
      const auto b = hn::Set(d, bias[v]);
      t0 = hn::Max(t0, hn::Add(hn::LoadU(d, at), b));
      t1 = hn::Max(t1, hn::Add(hn::LoadU(d, at + lanes), b));
    }
    hn::StoreU(t0, d, top + r);
    hn::StoreU(t1, d, top + r + lanes);
  }
}

/// Logits become exp(logit + bias - top); their sums are added to `sums`.
template <class T>
void take_exponentials(T* logits, int64_t columns, const T* bias, int64_t words, int64_t rows,
                       const T* top, T* sums) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  for (int64_t r = 0; r < rows; r += 2 * lanes) {
    const auto t0 = hn::LoadU(d, top + r), t1 = hn::LoadU(d, top + r + lanes);
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    T* at = logits + r;
    for (int64_t v = 0; v < words; ++v, at += columns) {
      const auto b = hn::Set(d, bias[v]);
      const auto e0 = exp_of(d, hn::Sub(hn::Add(hn::LoadU(d, at), b), t0));
      const auto e1 = exp_of(d, hn::Sub(hn::Add(hn::LoadU(d, at + lanes), b), t1));
      hn::StoreU(e0, d, at);
      hn::StoreU(e1, d, at + lanes);
      sum0 = hn::Add(sum0, e0);
      sum1 = hn::Add(sum1, e1);
    }
    hn::StoreU(hn::Add(hn::LoadU(d, sums + r), sum0), d, sums + r);
    hn::StoreU(hn::Add(hn::LoadU(d, sums + r + lanes), sum1), d, sums + r + lanes);
  }
}

/// The target's term stands apart from the others': 1 + others would round a small loss away, and
/// its gradient with it.
template <class T>
void rows_of(const SoftmaxRows<T>& s, int64_t begin, int64_t end, T* scratch) {
  const int64_t D = s.features, W = panel_width<T>(), rows = end - begin;
  const int64_t all = (rows + W - 1) / W * W;  // whole vectors
  T* const columns = s.by_word + begin;        // (V, all)
  T* const states = scratch;                   // (D, all) in panels
  T* const top = states + D * all;             // (all)
  T* const sums = top + all;                   // (all)
  T* const at_target = sums + all;             // (all)
  T* const rest = at_target + all;             // (kSoftmaxWords, W)
  pack<T>({s.hidden + begin * D, 1, D}, D, rows, states, D * W);
  std::fill_n(top, all, -std::numeric_limits<T>::infinity());
  by_words(s, [&](int64_t v, int64_t words) {
    T* logits = columns + v * s.columns;
    product<T>(words, all, D, {s.weight + v * D, D, 1}, states, D * W, logits, s.columns, false);
    take_tops(logits, s.columns, s.bias + v, words, all, top);
  });
  for (int64_t r = 0; r < rows; ++r) {
    T* target = columns + s.targets[begin + r] * s.columns + r;
    at_target[r] = *target + s.bias[s.targets[begin + r]];
    *target = -std::numeric_limits<T>::infinity();
  }
  T* const gradients = s.gradients ? s.gradients + begin * D : nullptr;
  std::fill_n(sums, all, T(0));
  by_words(s, [&](int64_t v, int64_t words) {
    T* logits = columns + v * s.columns;
    take_exponentials(logits, s.columns, s.bias + v, words, all, top, sums);
    if (gradients)
      plain_product<T>(rows, D, words, {logits, 1, s.columns}, s.weight + v * D, D, gradients, D,
                       v > 0, rest);
  });
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t target = s.targets[begin + r];
    const T others = sums[r], above = at_target[r] - top[r], own = std::exp(above);
    const T share = T(1) / (own + others);
    s.losses[begin + r] =
        own > T(kSmallRatio) ? std::log1p(others / own) : std::log(own + others) - above;
    s.shares[begin + r] = share;
    columns[target * s.columns + r] = -others;
    if (!gradients) continue;
    T* g = gradients + r * D;
    const T* w = s.weight + target * D;
    for (int64_t i = 0; i < D; ++i) g[i] = share * (g[i] - others * w[i]);
  }
}

template <class T>
void words_of(const SoftmaxRows<T>& s, int64_t begin, int64_t end, const T* scaled, T* weight,
              T* bias) {
  const int64_t D = s.features, W = panel_width<T>();
  for (int64_t v = begin; v < end; v += kSoftmaxWords) {
    const int64_t words = std::min(kSoftmaxWords, end - v);
    const T* columns = s.by_word + v * s.columns;
    product<T>(words, D, s.rows, {columns, s.columns, 1}, scaled, s.rows * W, weight + v * D, D,
               true);
    for (int64_t i = 0; i < words; ++i)
      bias[v + i] += dot(columns + i * s.columns, s.shares, s.rows);
  }
}

void rows_float(const SoftmaxRows<float>& s, int64_t b, int64_t e, float* x) {
  rows_of(s, b, e, x);
}
void rows_double(const SoftmaxRows<double>& s, int64_t b, int64_t e, double* x) {
  rows_of(s, b, e, x);
}
void words_float(const SoftmaxRows<float>& s, int64_t b, int64_t e, const float* x, float* w,
                 float* y) {
  words_of(s, b, e, x, w, y);
}
void words_double(const SoftmaxRows<double>& s, int64_t b, int64_t e, const double* x, double* w,
                  double* y) {
  words_of(s, b, e, x, w, y);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(rows_float);
HWY_EXPORT(rows_double);
HWY_EXPORT(words_float);
HWY_EXPORT(words_double);

void softmax_rows(const SoftmaxRows<float>& s, int64_t b, int64_t e, float* x) {
  HWY_DYNAMIC_DISPATCH(rows_float)(s, b, e, x);
}
void softmax_rows(const SoftmaxRows<double>& s, int64_t b, int64_t e, double* x) {
  HWY_DYNAMIC_DISPATCH(rows_double)(s, b, e, x);
}
void softmax_words(const SoftmaxRows<float>& s, int64_t b, int64_t e, const float* x, float* w,
                   float* y) {
  HWY_DYNAMIC_DISPATCH(words_float)(s, b, e, x, w, y);
}
void softmax_words(const SoftmaxRows<double>& s, int64_t b, int64_t e, const double* x, double* w,
                   double* y) {
  HWY_DYNAMIC_DISPATCH(words_double)(s, b, e, x, w, y);
}
}  // namespace deq::ops
#endif
