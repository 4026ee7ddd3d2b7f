#include "deq/ops/elimination.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "deq/base/error.h"
#include "deq/ops/tasks.h"

namespace deq::ops {

using at::Tensor;

namespace {

void check_square(const char* what, const Tensor& M) {
  DEQ_CHECK(M.defined() && M.dim() == 2 && M.size(0) == M.size(1),
            "{}: a matrix of shape [{}]; expected (n, n)", what,
            M.defined() ? fmt::format("{}", fmt::join(M.sizes(), ", ")) : "undefined");
}

/// The row at or below `column` with the largest number there.
template <class T>
int64_t pivot_of(const T* a, int64_t n, int64_t stride, int64_t column) {
  int64_t best = column;
  for (int64_t i = column + 1; i < n; ++i)
    if (std::abs(a[i * stride + column]) > std::abs(a[best * stride + column])) best = i;
  return best;
}

/// a (n, n) becomes its inverse, in place: row operations, their columns put back at the end.
void invert(double* a, int64_t n) {
  std::vector<int64_t> pivots(static_cast<size_t>(n));
  for (int64_t k = 0; k < n; ++k) {
    const int64_t p = pivots[size_t(k)] = pivot_of(a, n, n, k);
    if (p != k) std::swap_ranges(a + k * n, a + (k + 1) * n, a + p * n);
    double* const row = a + k * n;
    const double scale = 1 / row[k];
    row[k] = 1;
    for (int64_t j = 0; j < n; ++j) row[j] *= scale;
    for (int64_t i = 0; i < n; ++i) {
      if (i == k) continue;
      double* const other = a + i * n;
      const double factor = std::exchange(other[k], 0);
      for (int64_t j = 0; j < n; ++j) other[j] -= factor * row[j];
    }
  }
  for (int64_t k = n; k-- > 0;) {
    const int64_t p = pivots[size_t(k)];
    if (p == k) continue;
    for (int64_t i = 0; i < n; ++i) std::swap(a[i * n + k], a[i * n + p]);
  }
}

/// One row of solve_masked(): x of the m equations that are kept, in `a` (m, m + 1) with the right
/// side as its last column.
template <class T>
void eliminate(T* a, int64_t m) {
  const int64_t stride = m + 1;
  for (int64_t k = 0; k < m; ++k) {
    const int64_t p = pivot_of(a, m, stride, k);
    if (p != k) std::swap_ranges(a + k * stride + k, a + (k + 1) * stride, a + p * stride + k);
    const T* const row = a + k * stride;
    const T scale = 1 / row[k];
    for (int64_t i = k + 1; i < m; ++i) {
      T* const other = a + i * stride;
      const T factor = other[k] * scale;
      for (int64_t j = k + 1; j < stride; ++j) other[j] -= factor * row[j];
    }
  }
  for (int64_t k = m; k-- > 0;) {
    T sum = a[k * stride + m];
    for (int64_t j = k + 1; j < m; ++j) sum -= a[k * stride + j] * a[j * stride + m];
    a[k * stride + m] = sum / a[k * stride + k];
  }
}

/// `transposed` is W^T's numbers, contiguous.
template <class T>
void solve_rows(const Tensor& transposed, const Tensor& D, const Tensor& B, const Tensor& X) {
  const int64_t R = D.size(0), n = D.size(1);
  const T* const w = transposed.data_ptr<T>();
  const auto one = [&](int64_t r, T* a) {
    const T *d = D.data_ptr<T>() + r * n, *b = B.data_ptr<T>() + r * n;
    T* const x = X.data_ptr<T>() + r * n;
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < n; ++i)
      if (!(d[i] == 0)) kept.push_back(i);
    const auto m = int64_t(kept.size());
    for (int64_t i = 0; i < m; ++i) {
      const int64_t from = kept[size_t(i)];
      T* const row = a + i * (m + 1);
      for (int64_t j = 0; j < m; ++j) row[j] = -d[from] * w[from * n + kept[size_t(j)]];
      row[i] += 1;
      row[m] = d[from] * b[from];
    }
    eliminate(a, m);
    std::fill(x, x + n, T(0));
    for (int64_t i = 0; i < m; ++i) x[kept[size_t(i)]] = a[i * (m + 1) + m];
  };
  run_tasks<T>(R, n * (n + 1), one, R * n * n * n / 3);
}

}  // namespace

Tensor inverse(const Tensor& M) {
  DEQ_CHECK(M.dim() == 2 || M.dim() == 3, "inverse: [{}]; expected (n, n) or (F, n, n)",
            fmt::join(M.sizes(), ", "));
  check_square("inverse", M.dim() == 3 && M.size(0) > 0 ? M[0] : M);
  c10::AutoGradMode no_tape(false);
  if (!M.is_cpu()) return at::inverse(M.detach());
  const Tensor found = M.detach().to(at::kDouble).clone(at::MemoryFormat::Contiguous);
  const int64_t n = M.size(-1);
  double* const numbers = found.data_ptr<double>();
  run_tasks<char>(
      n == 0 ? 0 : M.numel() / (n * n), 0,
      [&](int64_t i, char*) { invert(numbers + i * n * n, n); }, M.numel() * n);
  return found.to(M.scalar_type());
}

double largest_singular_value(const Tensor& M) {
  check_square("largest_singular_value", M);
  constexpr int kIterations = 20;
  const Tensor matrix = M.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* const a = matrix.data_ptr<double>();
  const int64_t n = M.size(0);
  std::vector<double> v(static_cast<size_t>(n), 1), image(v);
  double value = 0;
  for (int64_t i = 0; i < n; ++i) v[size_t(i)] += 0.1 * double(i % 7);  // no vector of symmetry
  for (int k = 0; k < kIterations; ++k) {
    double squares = 0, longer = 0;
    for (const double x : v) squares += x * x;
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < n; ++j) sum += a[i * n + j] * v[size_t(j)];
      image[size_t(i)] = sum;
      longer += sum * sum;
    }
    if (!(longer > 0)) return std::isnan(longer) ? longer : value;
    value = std::max(value, std::sqrt(longer / squares));
    std::fill(v.begin(), v.end(), 0);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        v[size_t(j)] += a[i * n + j] * image[size_t(i)] / std::sqrt(longer);
  }
  return value;
}

Tensor solve_masked(const Tensor& W, const Tensor& D, const Tensor& B) {
  check_square("solve_masked", W);
  DEQ_CHECK(D.dim() == 2 && D.sizes() == B.sizes() && D.size(1) == W.size(0),
            "solve_masked: W of shape [{}], D [{}], B [{}]; expected (n, n), (R, n), (R, n)",
            fmt::join(W.sizes(), ", "), fmt::join(D.sizes(), ", "), fmt::join(B.sizes(), ", "));
  c10::AutoGradMode no_tape(false);
  const bool known = W.scalar_type() == at::kFloat || W.scalar_type() == at::kDouble;
  if (!W.is_cpu() || !known) return solve_masked_reference(W, D, B);
  const Tensor transposed = W.detach().t().contiguous(), x = at::empty_like(B.contiguous());
  if (W.scalar_type() == at::kFloat)
    solve_rows<float>(transposed, D.contiguous(), B.contiguous(), x);
  else
    solve_rows<double>(transposed, D.contiguous(), B.contiguous(), x);
  return x;
}

Tensor solve_masked_reference(const Tensor& W, const Tensor& D, const Tensor& B) {
  const Tensor one = at::eye(W.size(0), W.options().requires_grad(false));
  return at::linalg_solve(one - D.unsqueeze(2) * W.detach().t(), D * B);
}

}  // namespace deq::ops
