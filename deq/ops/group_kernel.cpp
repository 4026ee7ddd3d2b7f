// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/group_kernel.cpp"
#include "deq/ops/group_kernel.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "deq/ops/lines-inl.h"
#include "deq/ops/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

/// to[i] = f(a[i], b[i]), a vector at a time. Compilers leave such loops as they are here.
template <class T, class F>
HWY_INLINE void combine(const T* a, const T* b, int64_t n, T* to, const F& f) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(f(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, to + i);
  if (i < n)
    store_first(d, f(d, load_first(d, a + i, n - i), load_first(d, b + i, n - i)), to + i, n - i);
}

/// to += from.
template <class T>
HWY_INLINE void add(const T* from, int64_t n, T* to) {
  combine(from, to, n, to, [](auto, auto x, auto y) HWY_ATTR { return hn::Add(x, y); });
}
/// to += c from.
template <class T>
HWY_INLINE void add_scaled(const T* from, T c, int64_t n, T* to) {
  combine(from, to, n, to,
          [c](auto d, auto x, auto y) HWY_ATTR { return hn::MulAdd(hn::Set(d, c), x, y); });
}
/// to = c to.
template <class T>
HWY_INLINE void scale(T c, int64_t n, T* to) {
  map_line(to, n, to, [c](auto d, auto x) HWY_ATTR { return hn::Mul(hn::Set(d, c), x); });
}
/// to = max(to, 0); NaN stays.
template <class T>
HWY_INLINE void relu(int64_t n, T* to) {
  map_line(to, n, to, [](auto d, auto x) HWY_ATTR {
    return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
  });
}

/// C (m, n) = A (m, k) B + base; all contiguous, B in panels.
template <class T>
void multiply(int64_t m, int64_t n, int64_t k, const T* a, const T* panels, T* c, const T* base) {
  product<T>(m, n, k, Strided<T>{a, k, 1}, panels, k * panel_width<T>(), c, n, Base<T>{base, n});
}

/// The mean state of every place over its symbols, and of every group and symbol over its places.
template <class T>
void means_of(const GroupShape<T>& g, const T* z, T* means) {
  const int64_t S = g.symbols, w = g.width, row = S * w;
  std::fill_n(means, g.messages() * w, T(0));
  for (int64_t p = 0; p < g.places; ++p) {
    T* mean = means + p * w;
    for (int64_t s = 0; s < S; ++s) add(z + p * row + s * w, w, mean);
    scale(T(1) / T(S), w, mean);
  }
  T* sums = means + g.places * w;
  for (const GroupKind<T>& kind : g.kinds) {
    for (int64_t p = 0; p < g.places; ++p) {
      if (kind.group[p] >= 0) add(z + p * row, row, sums + kind.group[p] * row);
    }
    for (int64_t group = 0; group < kind.groups; ++group, sums += row)
      scale(kind.share[group], row, sums);
  }
}

/// What is heard: the products of means, each with its weight.
template <class T>
void messages_of(const GroupShape<T>& g, const T* means, T* messages) {
  const int64_t w = g.width, I = g.inner;
  multiply(g.places, I, w, means, g.place, messages, static_cast<const T*>(nullptr));
  int64_t row = g.places;
  for (const GroupKind<T>& kind : g.kinds) {
    const int64_t count = kind.groups * g.symbols;
    multiply(count, I, w, means + row * w, kind.weights, messages + row * I,
             static_cast<const T*>(nullptr));
    row += count;
  }
}

template <class T>
void forward(const GroupShape<T>& g, const GroupForward<T>& at, T* scratch) {
  const int64_t S = g.symbols, w = g.width, I = g.inner, block = g.block();
  T* const means = at.means ? at.means : scratch;
  T* const messages = scratch + g.messages() * w;
  T* const heard = messages + g.messages() * I;  // (block S, I)
  T* const units = heard + block * S * I;        // (block S, I)
  means_of(g, at.z, means);
  messages_of(g, means, messages);
  for (int64_t first = 0; first < g.places; first += block) {
    const int64_t places = std::min(block, g.places - first), rows = places * S;
    for (int64_t p = first; p < first + places; ++p) {
      T* to = heard + (p - first) * S * I;
      for (int64_t s = 0; s < S; ++s)
        combine(at.injected + (p * S + s) * I, messages + p * I, I, to + s * I,
                [](auto, auto x, auto y) HWY_ATTR { return hn::Add(x, y); });
      const T* of_kind = messages + g.places * I;
      for (const GroupKind<T>& kind : g.kinds) {
        if (kind.group[p] >= 0) add(of_kind + kind.group[p] * S * I, S * I, to);
        of_kind += kind.groups * S * I;
      }
    }
    const T* z = at.z + first * S * w;
    T* hidden = at.hidden ? at.hidden + first * S * I : units;
    multiply(rows, I, w, z, g.own, hidden, heard);
    relu(rows * I, hidden);
    T* f = at.f + first * S * w;
    multiply(rows, w, I, hidden, g.output, f, z);
    for (int64_t row = 0; row < rows; ++row) {
      T* y = f + row * w;
      const T inverse = T(1) / std::sqrt(dot(y, y, w) / T(w) + T(1e-6));
      scale(inverse, w, y);
      if (at.scale) at.scale[first * S + row] = inverse;
    }
  }
}

/// With f = r y, r = 1 / rms: dy = r (df - f <f, df> / w); then through the units, and the messages
/// of all places at once.
template <class T>
void backward(const GroupShape<T>& g, const GroupBackward<T>& at, T* scratch) {
  const int64_t S = g.symbols, w = g.width, I = g.inner, block = g.block();
  T* const dmeans = scratch;
  T* const own_messages = scratch + g.messages() * w;
  T* const messages = at.messages ? at.messages : own_messages;
  T* const units = own_messages + g.messages() * I;
  T* const lines = units + block * S * I;
  std::fill_n(messages, g.messages() * I, T(0));
  for (int64_t first = 0; first < g.places; first += block) {
    const int64_t places = std::min(block, g.places - first), rows = places * S;
    T* dy = at.output ? at.output + first * S * w : lines;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t line = first * S + row;
      const T *df = at.df + line * w, *f = at.f + line * w;
      const T inverse = at.scale[line], along = inverse * dot(df, f, w) / T(w);
      combine(df, f, w, dy + row * w, [inverse, along](auto d, auto x, auto y) HWY_ATTR {
        return hn::MulSub(hn::Set(d, inverse), x, hn::Mul(hn::Set(d, along), y));
      });
    }
    T* dh = at.injected ? at.injected + first * S * I : units;
    const T* hidden = at.hidden + first * S * I;
    multiply(rows, I, w, dy, g.output, dh, static_cast<const T*>(nullptr));
    combine(hidden, dh, rows * I, dh, [](auto d, auto h, auto x) HWY_ATTR {
      return hn::IfThenElseZero(hn::Gt(h, hn::Zero(d)), x);
    });
    multiply(rows, w, I, dh, g.own, at.dz + first * S * w, dy);
    for (int64_t p = first; p < first + places; ++p) {
      const T* from = dh + (p - first) * S * I;
      for (int64_t s = 0; s < S; ++s) add(from + s * I, I, messages + p * I);
      T* of_kind = messages + g.places * I;
      for (const GroupKind<T>& kind : g.kinds) {
        if (kind.group[p] >= 0) add(from, S * I, of_kind + kind.group[p] * S * I);
        of_kind += kind.groups * S * I;
      }
    }
  }
  multiply(g.places, w, I, messages, g.place, dmeans, static_cast<const T*>(nullptr));
  int64_t row = g.places;
  for (const GroupKind<T>& kind : g.kinds) {
    multiply(kind.groups * S, w, I, messages + row * I, kind.weights, dmeans + row * w,
             static_cast<const T*>(nullptr));
    row += kind.groups * S;
  }
  for (int64_t p = 0; p < g.places; ++p) {
    T* dz = at.dz + p * S * w;
    for (int64_t s = 0; s < S; ++s) add_scaled(dmeans + p * w, T(1) / T(S), w, dz + s * w);
    const T* of_kind = dmeans + g.places * w;
    for (const GroupKind<T>& kind : g.kinds) {
      const int64_t group = kind.group[p];
      if (group >= 0) add_scaled(of_kind + group * S * w, kind.share[group], S * w, dz);
      of_kind += kind.groups * S * w;
    }
  }
}

void forward_float(const GroupShape<float>& g, const GroupForward<float>& at, float* s) {
  forward(g, at, s);
}
void forward_double(const GroupShape<double>& g, const GroupForward<double>& at, double* s) {
  forward(g, at, s);
}
void backward_float(const GroupShape<float>& g, const GroupBackward<float>& at, float* s) {
  backward(g, at, s);
}
void backward_double(const GroupShape<double>& g, const GroupBackward<double>& at, double* s) {
  backward(g, at, s);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(forward_float);
HWY_EXPORT(forward_double);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_double);

void group_forward(const GroupShape<float>& g, const GroupForward<float>& at, float* s) {
  HWY_DYNAMIC_DISPATCH(forward_float)(g, at, s);
}
void group_forward(const GroupShape<double>& g, const GroupForward<double>& at, double* s) {
  HWY_DYNAMIC_DISPATCH(forward_double)(g, at, s);
}
void group_backward(const GroupShape<float>& g, const GroupBackward<float>& at, float* s) {
  HWY_DYNAMIC_DISPATCH(backward_float)(g, at, s);
}
void group_backward(const GroupShape<double>& g, const GroupBackward<double>& at, double* s) {
  HWY_DYNAMIC_DISPATCH(backward_double)(g, at, s);
}

/// Rows in full tiles of the product, and enough of them: a multiple of 6 rows, at least 18.
template <class T>
int64_t GroupShape<T>::block() const {
  const int64_t unit = 6 / std::gcd<int64_t>(symbols, 6);
  const int64_t count = unit * ((18 + unit * symbols - 1) / (unit * symbols));
  return std::min(places, count);
}
template struct GroupShape<float>;
template struct GroupShape<double>;
}  // namespace deq::ops
#endif
