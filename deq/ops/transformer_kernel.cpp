// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/transformer_kernel.cpp"
#include "deq/ops/transformer_kernel.h"

#include <ATen/Parallel.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "deq/ops/lines-inl.h"
#include "deq/ops/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr double kNormEpsilon = 1e-5;  // LibTorch's layer_norm

/// out = (x - mean) / deviation; returns 1 / deviation. `out` may be x.
template <class T>
T norm_row(const T* x, int64_t n, T* out) {
  const T center = sum(x, n) / T(n);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] - center;
  const T spread = T(1) / std::sqrt(dot(out, out, n) / T(n) + T(kNormEpsilon));
  for (int64_t i = 0; i < n; ++i) out[i] *= spread;
  return spread;
}

/// dx of y = norm_row(x), from dy; `dx` may be dy.
template <class T>
void norm_row_backward(const T* dy, const T* y, T spread, int64_t n, T* dx) {
  const T a = sum(dy, n) / T(n), b = dot(dy, y, n) / T(n);
  for (int64_t i = 0; i < n; ++i) dx[i] = spread * (dy[i] - a - y[i] * b);
}

template <class T>
const T* mask_row(const T* mask, const BlockRows<T>& b, int64_t row, int64_t n) {
  return mask + row / b.positions * n;
}

/// to (rows, n) = x (rows, k) times W, plus a bias or none.
template <class T>
void affine_rows(int64_t rows, int64_t n, int64_t k, const T* x, const Panels<T>& panels,
                 const T* bias, T* to) {
  weight_product(rows, n, k, x, panels, to, Base<T>{bias, 0});
}

template <class T>
void project(const BlockRows<T>& b, int64_t begin, int64_t end, T* scratch) {
  const int64_t D = b.width, rows = end - begin;
  const T* x = b.z + begin * D;
  if (b.norm != NormPlace::Post) {
    for (int64_t r = 0; r < rows; ++r) norm_row(x + r * D, D, scratch + r * D);
    x = scratch;
  }
  const Base<T> injected{b.injected, 3 * D};
  weight_product(rows, 3 * D, D, x, b.weights.qkv, b.qkv + begin * 3 * D, injected.at(begin, 0));
}

template <class T>
void feed(const BlockRows<T>& b, int64_t begin, int64_t end, T* scratch) {
  const int64_t D = b.width, I = b.inner, rows = end - begin;
  T* summed = scratch;  // z + O seen, in the end what the feed-forward part is added to
  T* normed = b.normed ? b.normed + begin * D : summed + rows * D;
  T* hidden = b.hidden ? b.hidden + begin * I : summed + 2 * rows * D;
  affine_rows(rows, D, D, b.seen + begin * D, b.weights.output, b.output_bias, summed);
  for (int64_t r = 0; r < rows; ++r) {
    T* s = summed + r * D;
    if (b.output_mask) multiply_line(mask_row(b.output_mask, b, begin + r, D), D, s);
    add_line(b.z + (begin + r) * D, D, s);
    const T spread = norm_row(s, D, normed + r * D);
    if (b.spread) b.spread[2 * (begin + r)] = spread;
  }
  affine_rows(rows, I, D, normed, b.weights.inner, b.inner_bias, hidden);
  for (int64_t r = 0; r < rows; ++r) {
    T* h = hidden + r * I;
    for (int64_t i = 0; i < I; ++i) h[i] = h[i] < 0 ? T(0) : h[i];  // NaN stays
    if (b.inner_mask) multiply_line(mask_row(b.inner_mask, b, begin + r, I), I, h);
  }
  T* f = b.f + begin * D;
  affine_rows(rows, D, I, hidden, b.weights.outer, b.outer_bias, f);
  const T* base = b.norm == NormPlace::Pre ? summed : normed;
  for (int64_t r = 0; r < rows; ++r) {
    T* y = f + r * D;
    if (b.outer_mask) multiply_line(mask_row(b.outer_mask, b, begin + r, D), D, y);
    add_line(base + r * D, D, y);
    if (b.norm != NormPlace::Post) continue;
    const T spread = norm_row(y, D, y);
    if (b.spread) b.spread[2 * (begin + r) + 1] = spread;
  }
}

template <class T>
void feed_backward(const BlockRows<T>& b, const BlockGradients<T>& g, int64_t begin, int64_t end,
                   T* scratch) {
  const int64_t D = b.width, I = b.inner, rows = end - begin;
  T* base = scratch;            // of what the feed-forward part is added to
  T* normed = base + rows * D;  // of `normed`
  T* outer = g.outer ? g.outer + begin * D : normed + rows * D;
  T* output = g.output ? g.output + begin * D : normed + 2 * rows * D;
  T* hidden = g.inner ? g.inner + begin * I : normed + 3 * rows * D;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = begin + r;
    const T* df = g.df + row * D;
    T* to = base + r * D;
    if (b.norm == NormPlace::Post) {
      norm_row_backward(df, b.f + row * D, b.spread[2 * row + 1], D, to);
    } else {
      std::copy_n(df, D, to);
    }
    std::copy_n(to, D, outer + r * D);
    if (b.outer_mask) multiply_line(mask_row(b.outer_mask, b, row, D), D, outer + r * D);
  }
  affine_rows<T>(rows, I, D, outer, b.weights.outer, nullptr, hidden);
  for (int64_t r = 0; r < rows; ++r) {
    T* to = hidden + r * I;
    const T* h = b.hidden + (begin + r) * I;
    for (int64_t i = 0; i < I; ++i) to[i] = h[i] > 0 ? to[i] : T(0);
    if (b.inner_mask) multiply_line(mask_row(b.inner_mask, b, begin + r, I), I, to);
  }
  affine_rows<T>(rows, D, I, hidden, b.weights.inner, nullptr, normed);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = begin + r;
    T* dn = normed + r * D;
    if (b.norm != NormPlace::Pre) add_line(base + r * D, D, dn);
    T* dz = g.z + row * D;
    norm_row_backward(dn, b.normed + row * D, b.spread[2 * row], D, dz);
    if (b.norm == NormPlace::Pre) add_line(base + r * D, D, dz);
    std::copy_n(dz, D, output + r * D);
    if (b.output_mask) multiply_line(mask_row(b.output_mask, b, row, D), D, output + r * D);
  }
  affine_rows<T>(rows, D, D, output, b.weights.output, nullptr, g.seen + begin * D);
}

template <class T>
void project_backward(const BlockRows<T>& b, const BlockGradients<T>& g, int64_t begin, int64_t end,
                      T* scratch) {
  const int64_t D = b.width, rows = end - begin;
  const T* qkv = g.qkv + begin * 3 * D;
  T* dz = g.z + begin * D;
  if (b.norm == NormPlace::Post)
    return weight_product(rows, D, 3 * D, qkv, b.weights.qkv, dz, Base<T>{dz, D});
  T *dx = scratch, *x = scratch + rows * D;
  weight_product(rows, D, 3 * D, qkv, b.weights.qkv, dx, Base<T>{});
  for (int64_t r = 0; r < rows; ++r) {
    const T spread = norm_row(b.z + (begin + r) * D, D, x + r * D);
    norm_row_backward(dx + r * D, x + r * D, spread, D, dx + r * D);
    add_line(dx + r * D, D, dz + r * D);
  }
}

void project_float(const BlockRows<float>& b, int64_t i, int64_t n, float* s) {
  project(b, i, n, s);
}
void project_double(const BlockRows<double>& b, int64_t i, int64_t n, double* s) {
  project(b, i, n, s);
}
void feed_float(const BlockRows<float>& b, int64_t i, int64_t n, float* s) { feed(b, i, n, s); }
void feed_double(const BlockRows<double>& b, int64_t i, int64_t n, double* s) { feed(b, i, n, s); }
void feed_backward_float(const BlockRows<float>& b, const BlockGradients<float>& g, int64_t i,
                         int64_t n, float* s) {
  feed_backward(b, g, i, n, s);
}
void feed_backward_double(const BlockRows<double>& b, const BlockGradients<double>& g, int64_t i,
                          int64_t n, double* s) {
  feed_backward(b, g, i, n, s);
}
void project_backward_float(const BlockRows<float>& b, const BlockGradients<float>& g, int64_t i,
                            int64_t n, float* s) {
  project_backward(b, g, i, n, s);
}
void project_backward_double(const BlockRows<double>& b, const BlockGradients<double>& g, int64_t i,
                             int64_t n, double* s) {
  project_backward(b, g, i, n, s);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(project_float);
HWY_EXPORT(project_double);
HWY_EXPORT(feed_float);
HWY_EXPORT(feed_double);
HWY_EXPORT(feed_backward_float);
HWY_EXPORT(feed_backward_double);
HWY_EXPORT(project_backward_float);
HWY_EXPORT(project_backward_double);

void project_rows(const BlockRows<float>& b, int64_t i, int64_t n, float* s) {
  HWY_DYNAMIC_DISPATCH(project_float)(b, i, n, s);
}
void project_rows(const BlockRows<double>& b, int64_t i, int64_t n, double* s) {
  HWY_DYNAMIC_DISPATCH(project_double)(b, i, n, s);
}
void feed_rows(const BlockRows<float>& b, int64_t i, int64_t n, float* s) {
  HWY_DYNAMIC_DISPATCH(feed_float)(b, i, n, s);
}
void feed_rows(const BlockRows<double>& b, int64_t i, int64_t n, double* s) {
  HWY_DYNAMIC_DISPATCH(feed_double)(b, i, n, s);
}
void feed_rows_backward(const BlockRows<float>& b, const BlockGradients<float>& g, int64_t i,
                        int64_t n, float* s) {
  HWY_DYNAMIC_DISPATCH(feed_backward_float)(b, g, i, n, s);
}
void feed_rows_backward(const BlockRows<double>& b, const BlockGradients<double>& g, int64_t i,
                        int64_t n, double* s) {
  HWY_DYNAMIC_DISPATCH(feed_backward_double)(b, g, i, n, s);
}
void project_rows_backward(const BlockRows<float>& b, const BlockGradients<float>& g, int64_t i,
                           int64_t n, float* s) {
  HWY_DYNAMIC_DISPATCH(project_backward_float)(b, g, i, n, s);
}
void project_rows_backward(const BlockRows<double>& b, const BlockGradients<double>& g, int64_t i,
                           int64_t n, double* s) {
  HWY_DYNAMIC_DISPATCH(project_backward_double)(b, g, i, n, s);
}

int64_t block_scratch(int64_t rows, int64_t width, int64_t inner) {
  return rows * (5 * width + inner);
}
}  // namespace deq::ops
#endif
