// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/weight_gradient.cpp"
#include "deq/ops/weight_gradient.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "deq/ops/lines-inl.h"
#include "deq/ops/product-inl.h"

// What all targets share.
#ifndef DEQ_OPS_WEIGHT_GRADIENT_ONCE
#define DEQ_OPS_WEIGHT_GRADIENT_ONCE
namespace deq::ops {

// Columns of the left factor that are copied side by side: read where they lie, rows a power of two
// apart would share a few places of the cache.
constexpr int64_t kLeft = 24;
// Rows that are summed at a time: a panel of so many stays in the first-level cache.
constexpr int64_t kSummed = 192;

/// Both factors of A^T B laid out for the kernel, `rows` of each: `left` in blocks of kLeft
/// columns, each (rows, kLeft), the last with room for as many; `right` in panels.
template <class T>
struct Factors {
  int64_t rows;
  const T *left, *right;
};

}  // namespace deq::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

/// C (m, n) = A^T B. Every sum runs over the rows in one fixed order.
template <class T>
void summed_product(int64_t m, int64_t n, const Factors<T>& f, T* c, int64_t c_row) {
  const int64_t W = panel_width<T>();
  for (int64_t r = 0; r < f.rows; r += kSummed) {
    const int64_t summed = std::min(kSummed, f.rows - r);
    for (int64_t j = 0; j < n; j += W) {
      const T* panel = f.right + j * f.rows + r * W;
      for (int64_t i = 0; i < m; i += kLeft)
        product<T>(std::min(kLeft, m - i), std::min(W, n - j), summed,
                   {f.left + i * f.rows + r * kLeft, 1, kLeft}, panel, summed * W,
                   c + i * c_row + j, c_row, r > 0);
    }
  }
}

/// `rows` rows of n <= kLeft numbers, kLeft numbers apart.
template <class T>
void copy_columns(const T* from, int64_t from_row, int64_t rows, int64_t n, T* to) {
  for (int64_t p = 0; p < rows; ++p)
    map_line(from + p * from_row, n, to + p * kLeft, [](auto, auto x) HWY_ATTR { return x; });
}

void copy_float(const float* from, int64_t from_row, int64_t rows, int64_t n, float* to) {
  copy_columns(from, from_row, rows, n, to);
}
void copy_double(const double* from, int64_t from_row, int64_t rows, int64_t n, double* to) {
  copy_columns(from, from_row, rows, n, to);
}

void product_float(int64_t m, int64_t n, const Factors<float>& f, float* c, int64_t c_row) {
  summed_product(m, n, f, c, c_row);
}
void product_double(int64_t m, int64_t n, const Factors<double>& f, double* c, int64_t c_row) {
  summed_product(m, n, f, c, c_row);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/ops/packed.h"
#include "deq/ops/tasks.h"

namespace deq::ops {
HWY_EXPORT(product_float);
HWY_EXPORT(product_double);
HWY_EXPORT(copy_float);
HWY_EXPORT(copy_double);

namespace {

using at::Tensor;

// The result is shared out in rectangles of so many rows and panels.
constexpr int64_t kHigh = 4 * kLeft, kPanels = 4;

void multiply(int64_t m, int64_t n, const Factors<float>& f, float* c, int64_t c_row) {
  HWY_DYNAMIC_DISPATCH(product_float)(m, n, f, c, c_row);
}
void multiply(int64_t m, int64_t n, const Factors<double>& f, double* c, int64_t c_row) {
  HWY_DYNAMIC_DISPATCH(product_double)(m, n, f, c, c_row);
}

void copy_columns(const Strided<float>& a, int64_t rows, int64_t columns, float* to) {
  HWY_DYNAMIC_DISPATCH(copy_float)(a.data, a.row, rows, columns, to);
}
void copy_columns(const Strided<double>& a, int64_t rows, int64_t columns, double* to) {
  HWY_DYNAMIC_DISPATCH(copy_double)(a.data, a.row, rows, columns, to);
}

int64_t parts(int64_t all, int64_t size) { return (all + size - 1) / size; }

/// Of rows whose columns lie side by side.
template <class T>
Tensor by_kernel(const Tensor& dy, const Tensor& x) {
  const int64_t rows = dy.size(0), n = dy.size(1), k = x.size(1), W = panel_width<T>();
  const auto options = dy.options().requires_grad(false);
  if (rows == 0) return at::zeros({n, k}, options);
  const Tensor left = at::empty({parts(n, kLeft) * kLeft * rows}, options);
  const Tensor right = at::empty({packed_size<T>(rows, k)}, options);
  T *const blocks = left.data_ptr<T>(), *const panels = right.data_ptr<T>();
  const Strided<T> a{dy.data_ptr<T>(), dy.stride(0), 1}, b{x.data_ptr<T>(), x.stride(0), 1};
  run_tasks<T>(parts(n, kLeft) + parts(k, W), 0, [&](int64_t task, T*) {
    const int64_t i = task * kLeft, j = (task - parts(n, kLeft)) * W;
    if (i < n) return copy_columns(a.right(i), rows, std::min(kLeft, n - i), blocks + i * rows);
    pack(b.right(j), rows, std::min(W, k - j), panels + j * rows);
  });
  const Tensor out = at::empty({n, k}, options);
  T* const to = out.data_ptr<T>();
  const int64_t wide = kPanels * W, across = parts(k, wide);
  run_tasks<T>(across * parts(n, kHigh), 0, [&](int64_t task, T*) {
    const int64_t i = task / across * kHigh, j = task % across * wide;
    multiply(std::min(kHigh, n - i), std::min(wide, k - j),
             Factors<T>{rows, blocks + i * rows, panels + j * rows}, to + i * k + j, k);
  });
  return out;
}

/// Sums of float are of 64 rows at most, then in double.
template <class T>
Tensor sum_of_rows(const Tensor& dy) {
  constexpr int64_t kColumns = 64, kRows = 64;
  const int64_t rows = dy.size(0), n = dy.size(1), stride = dy.stride(0);
  const Tensor out = at::empty({n}, dy.options().requires_grad(false));
  const T* const from = dy.data_ptr<T>();
  T* const to = out.data_ptr<T>();
  const auto columns = [&](int64_t block, T*) {
    const int64_t first = block * kColumns, width = std::min(kColumns, n - first);
    double all[kColumns] = {};
    for (int64_t r = 0; r < rows; r += kRows) {
      T some[kColumns] = {};
      for (int64_t p = r; p < std::min(rows, r + kRows); ++p) {
        for (int64_t c = 0; c < width; ++c) some[c] += from[p * stride + first + c];
      }
      for (int64_t c = 0; c < width; ++c) all[c] += double(some[c]);
    }
    for (int64_t c = 0; c < width; ++c) to[first + c] = T(all[c]);
  };
  run_tasks<T>(parts(n, kColumns), 0, columns, rows * n);
  return out;
}

Tensor with_rows(const Tensor& x) { return x.stride(1) == 1 ? x : x.contiguous(); }

}  // namespace

Tensor weight_gradient(const Tensor& dy, const Tensor& x) {
  const bool known = dy.scalar_type() == at::kFloat || dy.scalar_type() == at::kDouble;
  if (!known || !dy.is_cpu() || c10::GradMode::is_enabled()) return at::mm(dy.t(), x);
  return dy.scalar_type() == at::kFloat ? by_kernel<float>(with_rows(dy), with_rows(x))
                                        : by_kernel<double>(with_rows(dy), with_rows(x));
}

Tensor bias_gradient(const Tensor& dy) {
  const bool known = dy.scalar_type() == at::kFloat || dy.scalar_type() == at::kDouble;
  if (!known || !dy.is_cpu() || c10::GradMode::is_enabled()) return dy.sum(0);
  return dy.scalar_type() == at::kFloat ? sum_of_rows<float>(with_rows(dy))
                                        : sum_of_rows<double>(with_rows(dy));
}

}  // namespace deq::ops
#endif
