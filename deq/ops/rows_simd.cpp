// The solvers' row operators for float and double on the CPU, compiled once per SIMD target
// (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/rows_simd.cpp"
#include "deq/ops/rows_simd.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sums in the state's type over blocks of this many numbers, then in double: long rows lose
// nothing.
constexpr int64_t kBlock = 4096;

// Outside of these, products of floats may have underflowed or overflowed on the way.
constexpr double kSmallest = 1e-24, kLargest = 1e36;

/// The same in double from the start, at half the speed.
double dot_in_double(const float* a, const float* b, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  const int64_t lanes = hn::Lanes(d);
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    sum = hn::MulAdd(hn::PromoteTo(d, hn::LoadU(half, a + i)),
                     hn::PromoteTo(d, hn::LoadU(half, b + i)), sum);
  }
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += double(a[i]) * double(b[i]);
  return total;
}

template <class T>
double dot(const T* a, const T* b, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = begin + kBlock < n ? begin + kBlock : n;
    auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = begin;
    for (; i + 4 * lanes <= end; i += 4 * lanes) {
      s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
      s1 = hn::MulAdd(hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), s1);
      s2 = hn::MulAdd(hn::LoadU(d, a + i + 2 * lanes), hn::LoadU(d, b + i + 2 * lanes), s2);
      s3 = hn::MulAdd(hn::LoadU(d, a + i + 3 * lanes), hn::LoadU(d, b + i + 3 * lanes), s3);
    }
    for (; i + lanes <= end; i += lanes)
      s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    T sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
    for (; i < end; ++i) sum += a[i] * b[i];
    total += double(sum);
  }
  if constexpr (sizeof(T) == sizeof(float)) {
    const double size = std::abs(total);
    if (!(size > kSmallest && size < kLargest)) return dot_in_double(a, b, n);
  }
  return total;
}

template <class T>
void dots(const T* const* history, int64_t m, const T* g, int64_t n, int64_t begin, int64_t end,
          double* out) {
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t i = 0; i < m; ++i) out[r * m + i] = dot(history[i] + r * n, g + r * n, n);
  }
}

/// out[i] = base[i] + sum_k c[k] history[k][i] for n numbers from `at` on.
template <class T>
void mix_line(const double* c, const T* const* history, int64_t m, const T* base, int64_t at,
              int64_t n, T* out) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d), end = at + n;
  for (; at + 2 * lanes <= end; at += 2 * lanes) {
    auto s0 = base ? hn::LoadU(d, base + at) : hn::Zero(d);
    auto s1 = base ? hn::LoadU(d, base + at + lanes) : hn::Zero(d);
    for (int64_t k = 0; k < m; ++k) {
      const auto weight = hn::Set(d, T(c[k]));
      s0 = hn::MulAdd(weight, hn::LoadU(d, history[k] + at), s0);
      s1 = hn::MulAdd(weight, hn::LoadU(d, history[k] + at + lanes), s1);
    }
    hn::StoreU(s0, d, out + at);
    hn::StoreU(s1, d, out + at + lanes);
  }
  for (; at < end; ++at) {
    T sum = base ? base[at] : T(0);
    for (int64_t k = 0; k < m; ++k) sum += T(c[k]) * history[k][at];
    out[at] = sum;
  }
}

template <class T>
void mix(const double* coefficients, const T* const* history, int64_t m, const T* base, int64_t n,
         int64_t begin, int64_t end, T* out) {
  for (int64_t r = begin; r < end; ++r)
    mix_line(coefficients + r * m, history, m, base, r * n, n, out);
}

// So much of each state of a history is in the cache when it is read again.
constexpr int64_t kStepBlock = 1024;

template <class T>
void step(const double* coefficients, const T* const* history, int64_t m, const T* z, const T* base,
          int64_t n, int64_t begin, int64_t end, T* next, T* step, double* dots) {
  for (int64_t r = begin; r < end; ++r) {
    double* sums = dots + r * m;
    for (int64_t k = 0; k < m; ++k) sums[k] = 0;
    for (int64_t i = 0; i < n; i += kStepBlock) {
      const int64_t at = r * n + i, count = n - i < kStepBlock ? n - i : kStepBlock;
      mix_line(coefficients + r * m, history, m, base, at, count, step);
      for (int64_t j = at; j < at + count; ++j) {
        next[j] = z[j] + step[j];
        step[j] = next[j] - z[j];
      }
      for (int64_t k = 0; k < m; ++k) sums[k] += dot(history[k] + at, step + at, count);
    }
  }
}

// Between these, the square of a norm and those of its parts are numbers like any other.
constexpr double kSmallestSquare = 1e-280, kLargestSquare = 1e300;

/// |a|, of numbers of any size.
template <class T>
double norm(const T* a, int64_t n) {
  const double square = dot(a, a, n);
  if (square > kSmallestSquare && square < kLargestSquare) return std::sqrt(square);
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double size = std::abs(double(a[i]));
    if (!(size <= largest)) largest = size;
    if (!std::isfinite(size)) return size;
  }
  if (largest == 0) return 0;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(a[i]) / largest * (double(a[i]) / largest);
  return largest * std::sqrt(sum);
}

template <class T>
void residual(const T* z, const T* fz, int64_t n, int64_t begin, int64_t end, T* g, double* norms) {
  for (int64_t r = begin; r < end; ++r) {
    const T *from = z + r * n, *to = fz + r * n;
    T* row = g + r * n;
    for (int64_t i = 0; i < n; ++i) row[i] = to[i] - from[i];
    norms[2 * r] = norm(row, n);
    norms[2 * r + 1] = norm(to, n);
  }
}

double distance(const float* a, const float* b, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  const int64_t lanes = hn::Lanes(d);
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto apart =
        hn::Sub(hn::PromoteTo(d, hn::LoadU(half, a + i)), hn::PromoteTo(d, hn::LoadU(half, b + i)));
    sum = hn::MulAdd(apart, apart, sum);
  }
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
  return std::sqrt(total);
}

double distance(const double* a, const double* b, int64_t n) {
  const hn::ScalableTag<double> d;
  const int64_t lanes = hn::Lanes(d);
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto apart = hn::Sub(hn::LoadU(d, a + i), hn::LoadU(d, b + i));
    sum = hn::MulAdd(apart, apart, sum);
  }
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(total);
}

template <class T>
void distances(const T* a, const T* b, int64_t n, int64_t begin, int64_t end, double* out) {
  for (int64_t r = begin; r < end; ++r) out[r] = distance(a + r * n, b + r * n, n);
}

void distances_float(const float* a, const float* b, int64_t n, int64_t begin, int64_t end,
                     double* o) {
  distances(a, b, n, begin, end, o);
}
void distances_double(const double* a, const double* b, int64_t n, int64_t begin, int64_t end,
                      double* o) {
  distances(a, b, n, begin, end, o);
}
void residual_float(const float* z, const float* fz, int64_t n, int64_t b, int64_t e, float* g,
                    double* o) {
  residual(z, fz, n, b, e, g, o);
}
void residual_double(const double* z, const double* fz, int64_t n, int64_t b, int64_t e, double* g,
                     double* o) {
  residual(z, fz, n, b, e, g, o);
}
void dots_float(const float* const* h, int64_t m, const float* g, int64_t n, int64_t b, int64_t e,
                double* o) {
  dots(h, m, g, n, b, e, o);
}
void dots_double(const double* const* h, int64_t m, const double* g, int64_t n, int64_t b,
                 int64_t e, double* o) {
  dots(h, m, g, n, b, e, o);
}
void mix_float(const double* c, const float* const* h, int64_t m, const float* base, int64_t n,
               int64_t b, int64_t e, float* o) {
  mix(c, h, m, base, n, b, e, o);
}
void mix_double(const double* c, const double* const* h, int64_t m, const double* base, int64_t n,
                int64_t b, int64_t e, double* o) {
  mix(c, h, m, base, n, b, e, o);
}

void step_float(const double* c, const float* const* h, int64_t m, const float* z,
                const float* base, int64_t n, int64_t b, int64_t e, float* next, float* s,
                double* o) {
  step(c, h, m, z, base, n, b, e, next, s, o);
}
void step_double(const double* c, const double* const* h, int64_t m, const double* z,
                 const double* base, int64_t n, int64_t b, int64_t e, double* next, double* s,
                 double* o) {
  step(c, h, m, z, base, n, b, e, next, s, o);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(dots_float);
HWY_EXPORT(dots_double);
HWY_EXPORT(mix_float);
HWY_EXPORT(mix_double);
HWY_EXPORT(step_float);
HWY_EXPORT(step_double);
HWY_EXPORT(residual_float);
HWY_EXPORT(residual_double);
HWY_EXPORT(distances_float);
HWY_EXPORT(distances_double);

void simd_dots(const float* const* h, int64_t m, const float* g, int64_t n, int64_t b, int64_t e,
               double* o) {
  HWY_DYNAMIC_DISPATCH(dots_float)(h, m, g, n, b, e, o);
}
void simd_dots(const double* const* h, int64_t m, const double* g, int64_t n, int64_t b, int64_t e,
               double* o) {
  HWY_DYNAMIC_DISPATCH(dots_double)(h, m, g, n, b, e, o);
}
void simd_mix(const double* c, const float* const* h, int64_t m, const float* base, int64_t n,
              int64_t b, int64_t e, float* o) {
  HWY_DYNAMIC_DISPATCH(mix_float)(c, h, m, base, n, b, e, o);
}
void simd_mix(const double* c, const double* const* h, int64_t m, const double* base, int64_t n,
              int64_t b, int64_t e, double* o) {
  HWY_DYNAMIC_DISPATCH(mix_double)(c, h, m, base, n, b, e, o);
}
void simd_step(const double* c, const float* const* h, int64_t m, const float* z, const float* base,
               int64_t n, int64_t b, int64_t e, float* next, float* s, double* o) {
  HWY_DYNAMIC_DISPATCH(step_float)(c, h, m, z, base, n, b, e, next, s, o);
}
void simd_step(const double* c, const double* const* h, int64_t m, const double* z,
               const double* base, int64_t n, int64_t b, int64_t e, double* next, double* s,
               double* o) {
  HWY_DYNAMIC_DISPATCH(step_double)(c, h, m, z, base, n, b, e, next, s, o);
}
void simd_residual(const float* z, const float* fz, int64_t n, int64_t b, int64_t e, float* g,
                   double* o) {
  HWY_DYNAMIC_DISPATCH(residual_float)(z, fz, n, b, e, g, o);
}
void simd_residual(const double* z, const double* fz, int64_t n, int64_t b, int64_t e, double* g,
                   double* o) {
  HWY_DYNAMIC_DISPATCH(residual_double)(z, fz, n, b, e, g, o);
}
void simd_distances(const float* a, const float* b, int64_t n, int64_t begin, int64_t end,
                    double* o) {
  HWY_DYNAMIC_DISPATCH(distances_float)(a, b, n, begin, end, o);
}
void simd_distances(const double* a, const double* b, int64_t n, int64_t begin, int64_t end,
                    double* o) {
  HWY_DYNAMIC_DISPATCH(distances_double)(a, b, n, begin, end, o);
}
const char* simd_target() {
  return hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets());
}
}  // namespace deq::ops
#endif
