// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/unpacked.cpp"
#include "deq/ops/unpacked.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Words and rows whose sums are in registers at a time.
constexpr int64_t kWords = 4, kRows = 2;

/// The vector of x at i; zeros behind the k-th number.
template <class D, class T>
hn::Vec<D> vector_at(D d, const T* x, int64_t i, int64_t k) {
  if (i + int64_t(hn::Lanes(d)) <= k) return hn::LoadU(d, x + i);
  HWY_ALIGN T rest[hn::MaxLanes(d)] = {};
  std::copy(x + i, x + k, rest);
  return hn::Load(d, rest);
}

/// R rows of x by V words of w: to[r, v] = bias[v] + sum_i x[r, i] w[v, i], each summed lane by
/// lane and then across the lanes, whatever R and V are.
template <int R, int V, class T>
void tile(int64_t k, const T* x, const T* w, const T* bias, T* to, int64_t to_row) {
  const hn::ScalableTag<T> d;
  const int64_t L = int64_t(hn::Lanes(d));
  hn::Vec<decltype(d)> sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sums[r][v] = hn::Zero(d);
  }
  for (int64_t i = 0; i < k; i += L) {
    hn::Vec<decltype(d)> words[V];
    for (int v = 0; v < V; ++v) words[v] = vector_at(d, w + v * k, i, k);
    for (int r = 0; r < R; ++r) {
      const auto row = vector_at(d, x + r * k, i, k);
      for (int v = 0; v < V; ++v) sums[r][v] = hn::MulAdd(row, words[v], sums[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v)
      to[r * to_row + v] = bias[v] + hn::GetLane(hn::SumOfLanes(d, sums[r][v]));
  }
}

/// Words first .. last - 1 of n, for all rows.
template <class T>
void words_of(int64_t rows, int64_t n, int64_t k, const T* x, const T* w, const T* bias, T* to,
              int64_t first, int64_t last) {
  for (int64_t v = first; v < last;) {
    const bool whole = v + kWords <= last;
    for (int64_t r = 0; r < rows;) {
      const bool both = r + kRows <= rows;
      const T* const row = x + r * k;
      T* const out = to + r * n + v;
      if (whole && both) {
        tile<kRows, kWords>(k, row, w + v * k, bias + v, out, n);
      } else if (whole) {
        tile<1, kWords>(k, row, w + v * k, bias + v, out, n);
      } else {
        tile<1, 1>(k, row, w + v * k, bias + v, out, n);
      }
      r += whole && both ? kRows : 1;
    }
    v += whole ? kWords : 1;
  }
}

void words_float(int64_t rows, int64_t n, int64_t k, const float* x, const float* w,
                 const float* bias, float* to, int64_t first, int64_t last) {
  words_of(rows, n, k, x, w, bias, to, first, last);
}
void words_double(int64_t rows, int64_t n, int64_t k, const double* x, const double* w,
                  const double* bias, double* to, int64_t first, int64_t last) {
  words_of(rows, n, k, x, w, bias, to, first, last);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include "deq/base/error.h"
#include "deq/ops/tasks.h"

namespace deq::ops {
HWY_EXPORT(words_float);
HWY_EXPORT(words_double);

namespace {

using at::Tensor;

void words(int64_t rows, int64_t n, int64_t k, const float* x, const float* w, const float* bias,
           float* to, int64_t first, int64_t last) {
  HWY_DYNAMIC_DISPATCH(words_float)(rows, n, k, x, w, bias, to, first, last);
}
void words(int64_t rows, int64_t n, int64_t k, const double* x, const double* w, const double* bias,
           double* to, int64_t first, int64_t last) {
  HWY_DYNAMIC_DISPATCH(words_double)(rows, n, k, x, w, bias, to, first, last);
}

template <class T>
void multiply(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& out) {
  const int64_t N = x.size(0), k = x.size(1), n = weight.size(0);
  const int64_t grain = std::max<int64_t>(4, kWorthAThread / std::max<int64_t>(1, N * k));
  at::parallel_for(0, n, grain, [&](int64_t first, int64_t last) {
    words(N, n, k, x.data_ptr<T>(), weight.data_ptr<T>(), bias.data_ptr<T>(), out.data_ptr<T>(),
          first, last);
  });
}

}  // namespace

Tensor unpacked_affine(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  DEQ_CHECK(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1) &&
                bias.sizes() == at::IntArrayRef({weight.size(0)}),
            "unpacked_affine: x [{}], weight [{}], bias [{}]; expected (N, k), (n, k) and (n)",
            fmt::join(x.sizes(), ", "), fmt::join(weight.sizes(), ", "),
            fmt::join(bias.sizes(), ", "));
  const bool known = x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble;
  const bool one_type =
      x.scalar_type() == weight.scalar_type() && x.scalar_type() == bias.scalar_type();
  if (c10::GradMode::is_enabled() || !known || !one_type || !x.is_cpu())
    return at::addmm(bias, x, weight.t());
  const Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
  if (x.scalar_type() == at::kFloat) {
    multiply<float>(x.contiguous(), weight.contiguous(), bias.contiguous(), out);
  } else {
    multiply<double>(x.contiguous(), weight.contiguous(), bias.contiguous(), out);
  }
  return out;
}

}  // namespace deq::ops
#endif
