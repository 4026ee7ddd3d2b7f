// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/trellis_kernel.cpp"
#include "deq/ops/trellis_kernel.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "deq/ops/lines-inl.h"
#include "deq/ops/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

template <class T>
void forward(const TrellisRows<T>& r, int64_t begin, int64_t end, int64_t first, int64_t last,
             T* sums) {
  const int64_t W = panel_width<T>(), H = r.units, rows = end - begin;
  for (int64_t block = first; block < last; ++block) {
    const int64_t unit = block * W, count = std::min(W, H - unit);
    for (int64_t q = 0; q < 4; ++q) {
      T* to = sums + q * W;
      for (int64_t t = 0; t < rows; ++t) {
        std::copy_n(r.injected + ((begin + t) * 4 + q) * H + unit, count, to + t * 4 * W);
        std::fill(to + t * 4 * W + count, to + t * 4 * W + W, T(0));
      }
    }
    for (int64_t k = 0; k < r.kernel; ++k) {
      // The gates' panels of these units as if they stood side by side.
      product<T>(rows, 4 * W, H, {r.h + begin * r.h_row + k * r.tap, r.h_row, 1},
                 r.weights.after(4 * k * r.panels + unit * H), r.panels, sums, 4 * W,
                 Base<T>{sums, 4 * W});
    }
    for (int64_t t = 0; t < rows; ++t) {
      const int64_t row = begin + t;
      T *i = sums + t * 4 * W, *o = i + W, *g = o + W, *s = g + W;
      sigmoid_line(i, 2 * W, i);
      tanh_line(g, W, g);
      sigmoid_line(s, W, s);
      for (int64_t q = 0; r.gates && q < 4; ++q)
        std::copy_n(i + q * W, count, r.gates + (row * 4 + q) * H + unit);
      const T* before = (row == 0 ? r.c_first : r.c + (row - 1) * r.c_row) + unit;
      for (int64_t x = 0; x < count; ++x) g[x] = s[x] * before[x] + i[x] * g[x];
      T* f = r.f + row * 2 * H + unit;
      std::copy_n(g, count, f + H);
      tanh_line(g, W, g);
      for (int64_t x = 0; x < count; ++x) f[x] = o[x] * g[x];
    }
  }
}

/// With c' the new c, and a = dL/dc' + dL/dh' sigma(o) (1 - tanh(c')^2):
///   di = a g i (1 - i),  do = dh' tanh(c') o (1 - o),  dg = a i (1 - g^2),  ds = a c s (1 - s),
///   dc = a s.
template <class T>
void gates_backward(const TrellisRows<T>& r, const TrellisGradients<T>& to, int64_t begin,
                    int64_t end) {
  const int64_t H = r.units;
  for (int64_t row = begin; row < end; ++row) {
    const T *dh = to.df + row * 2 * H, *dc_new = dh + H, *c_new = r.f + row * 2 * H + H;
    const T* c = row == 0 ? r.c_first : r.c + (row - 1) * r.c_row;
    const T *i = r.gates + row * 4 * H, *o = i + H, *g = o + H, *s = g + H;
    T *di = to.gates + row * to.row, *d_o = di + H, *dg = d_o + H, *ds = dg + H;
    T* dc = to.c + row * H;
    tanh_line(c_new, H, dc);
    for (int64_t u = 0; u < H; ++u) {
      const T y = dc[u], a = dc_new[u] + dh[u] * o[u] * (1 - y * y);
      di[u] = a * g[u] * i[u] * (1 - i[u]);
      d_o[u] = dh[u] * y * o[u] * (1 - o[u]);
      dg[u] = a * i[u] * (1 - g[u] * g[u]);
      ds[u] = a * c[u] * s[u] * (1 - s[u]);
      dc[u] = a * s[u];
    }
  }
}

template <class T>
void backward(const TrellisRows<T>& r, const TrellisGradients<T>& to, int64_t begin, int64_t end,
              int64_t first, int64_t last, T* sums) {
  const int64_t W = panel_width<T>(), H = r.units, rows = end - begin;
  for (int64_t block = first; block < last; ++block) {
    const int64_t unit = block * W, count = std::min(W, H - unit);
    for (int64_t k = 0; k < r.kernel; ++k) {
      product<T>(rows, count, 4 * H,
                 {to.gates - to.ahead + begin * to.row + (r.kernel - 1 - k) * to.tap, to.row, 1},
                 r.weights.after(k * r.panels + unit * 4 * H), 4 * H * W, sums, W,
                 k > 0 ? Base<T>{sums, W} : Base<T>{});
    }
    for (int64_t t = 0; t < rows; ++t) {
      T* dh = to.z + (begin + t) * 2 * H + unit;
      std::copy_n(sums + t * W, count, dh);
      if (to.mask) multiply_line(to.mask + (begin + t) * to.mask_row + unit, count, dh);
    }
  }
}

void forward_float(const TrellisRows<float>& r, int64_t i, int64_t n, int64_t u, int64_t v,
                   float* s) {
  forward(r, i, n, u, v, s);
}
void forward_double(const TrellisRows<double>& r, int64_t i, int64_t n, int64_t u, int64_t v,
                    double* s) {
  forward(r, i, n, u, v, s);
}
void gates_backward_float(const TrellisRows<float>& r, const TrellisGradients<float>& to, int64_t i,
                          int64_t n) {
  gates_backward(r, to, i, n);
}
void gates_backward_double(const TrellisRows<double>& r, const TrellisGradients<double>& to,
                           int64_t i, int64_t n) {
  gates_backward(r, to, i, n);
}
void backward_float(const TrellisRows<float>& r, const TrellisGradients<float>& to, int64_t i,
                    int64_t n, int64_t u, int64_t v, float* s) {
  backward(r, to, i, n, u, v, s);
}
void backward_double(const TrellisRows<double>& r, const TrellisGradients<double>& to, int64_t i,
                     int64_t n, int64_t u, int64_t v, double* s) {
  backward(r, to, i, n, u, v, s);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "deq/ops/packed.h"

namespace deq::ops {
HWY_EXPORT(forward_float);
HWY_EXPORT(forward_double);
HWY_EXPORT(gates_backward_float);
HWY_EXPORT(gates_backward_double);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_double);

void trellis_rows(const TrellisRows<float>& r, int64_t i, int64_t n, int64_t u, int64_t v,
                  float* s) {
  HWY_DYNAMIC_DISPATCH(forward_float)(r, i, n, u, v, s);
}
void trellis_rows(const TrellisRows<double>& r, int64_t i, int64_t n, int64_t u, int64_t v,
                  double* s) {
  HWY_DYNAMIC_DISPATCH(forward_double)(r, i, n, u, v, s);
}
void trellis_gates_backward(const TrellisRows<float>& r, const TrellisGradients<float>& to,
                            int64_t i, int64_t n) {
  HWY_DYNAMIC_DISPATCH(gates_backward_float)(r, to, i, n);
}
void trellis_gates_backward(const TrellisRows<double>& r, const TrellisGradients<double>& to,
                            int64_t i, int64_t n) {
  HWY_DYNAMIC_DISPATCH(gates_backward_double)(r, to, i, n);
}
void trellis_rows_backward(const TrellisRows<float>& r, const TrellisGradients<float>& to,
                           int64_t i, int64_t n, int64_t u, int64_t v, float* s) {
  HWY_DYNAMIC_DISPATCH(backward_float)(r, to, i, n, u, v, s);
}
void trellis_rows_backward(const TrellisRows<double>& r, const TrellisGradients<double>& to,
                           int64_t i, int64_t n, int64_t u, int64_t v, double* s) {
  HWY_DYNAMIC_DISPATCH(backward_double)(r, to, i, n, u, v, s);
}

template <>
int64_t trellis_scratch<float>(int64_t rows) {
  return rows * 4 * panel_width<float>();
}
template <>
int64_t trellis_scratch<double>(int64_t rows) {
  return rows * 4 * panel_width<double>();
}
}  // namespace deq::ops
#endif
