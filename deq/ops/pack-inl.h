// What the kernels of quadratic programs count in: one number, or one of each of several samples
// in the lanes of a vector. Compiled once per SIMD target (Highway's convention for headers).
#if defined(DEQ_OPS_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_PACK_INL_H_
#undef DEQ_OPS_PACK_INL_H_
#else
#define DEQ_OPS_PACK_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Doubles = hn::ScalableTag<double>;
using Vector = hn::Vec<Doubles>;
constexpr int64_t kLanes = int64_t(hn::MaxLanes(Doubles()));

/// One number of each of kLanes samples. What happens to one has no part in the others.
struct Pack {
  Vector v;
  Pack() = default;
  HWY_INLINE Pack(Vector x) : v(x) {}                      // NOLINT: it is one
  HWY_INLINE Pack(double x) : v(hn::Set(Doubles(), x)) {}  // NOLINT: the same in all lanes
};
/// Which samples.
struct Lanes {
  hn::Mask<Doubles> m;
};

HWY_INLINE Pack operator+(Pack a, Pack b) { return hn::Add(a.v, b.v); }
HWY_INLINE Pack operator-(Pack a, Pack b) { return hn::Sub(a.v, b.v); }
HWY_INLINE Pack operator*(Pack a, Pack b) { return hn::Mul(a.v, b.v); }
HWY_INLINE Pack operator/(Pack a, Pack b) { return hn::Div(a.v, b.v); }
HWY_INLINE Pack operator-(Pack a) { return hn::Neg(a.v); }
HWY_INLINE Pack fma(Pack a, Pack b, Pack c) { return hn::MulAdd(a.v, b.v, c.v); }
HWY_INLINE Pack fnma(Pack a, Pack b, Pack c) { return hn::NegMulAdd(a.v, b.v, c.v); }
HWY_INLINE Pack max(Pack a, Pack b) { return hn::Max(a.v, b.v); }
HWY_INLINE Pack min(Pack a, Pack b) { return hn::Min(a.v, b.v); }
HWY_INLINE Pack abs(Pack a) { return hn::Abs(a.v); }
HWY_INLINE Pack sqrt(Pack a) { return hn::Sqrt(a.v); }
HWY_INLINE Lanes operator<(Pack a, Pack b) { return {hn::Lt(a.v, b.v)}; }
HWY_INLINE Lanes operator<=(Pack a, Pack b) { return {hn::Le(a.v, b.v)}; }
HWY_INLINE Lanes operator&&(Lanes a, Lanes b) { return {hn::And(a.m, b.m)}; }
HWY_INLINE Lanes operator||(Lanes a, Lanes b) { return {hn::Or(a.m, b.m)}; }
HWY_INLINE Lanes operator!(Lanes a) { return {hn::Not(a.m)}; }
HWY_INLINE Pack select(Lanes m, Pack yes, Pack no) { return hn::IfThenElse(m.m, yes.v, no.v); }
HWY_INLINE bool any(Lanes m) { return !hn::AllFalse(Doubles(), m.m); }
HWY_INLINE bool lane(Lanes m, int64_t i) {
  uint8_t bits[8] = {};
  hn::StoreMaskBits(Doubles(), m.m, bits);
  return (bits[0] >> i) & 1;
}

HWY_INLINE double fma(double a, double b, double c) { return a * b + c; }
HWY_INLINE double fnma(double a, double b, double c) { return c - a * b; }
HWY_INLINE double max(double a, double b) { return a > b ? a : b; }
HWY_INLINE double min(double a, double b) { return a < b ? a : b; }
HWY_INLINE double abs(double a) { return std::fabs(a); }
HWY_INLINE double sqrt(double a) { return __builtin_sqrt(a); }
HWY_INLINE double select(bool m, double yes, double no) { return m ? yes : no; }
HWY_INLINE bool any(bool m) { return m; }
HWY_INLINE bool lane(bool m, int64_t) { return m; }

/// How a row of a matrix of V is gone through: `unit` columns at a time.
template <class V>
struct Count;
template <>
struct Count<Pack> {
  using Mask = Lanes;
  static constexpr int64_t samples = kLanes, unit = 1;
  static HWY_INLINE Vector all(const Pack* p) { return p->v; }
  static HWY_INLINE Vector load(const Pack* p) { return p->v; }
  static HWY_INLINE void store(Vector x, Pack* p) { p->v = x; }
  static HWY_INLINE Pack sum(Vector x) { return x; }
};
template <>
struct Count<double> {
  using Mask = bool;
  static constexpr int64_t samples = 1, unit = kLanes;
  static HWY_INLINE Vector all(const double* p) { return hn::Set(Doubles(), *p); }
  static HWY_INLINE Vector load(const double* p) { return hn::Load(Doubles(), p); }
  static HWY_INLINE void store(Vector x, double* p) { hn::Store(x, Doubles(), p); }
  static HWY_INLINE double sum(Vector x) { return hn::GetLane(hn::SumOfLanes(Doubles(), x)); }
};

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
