#include "deq/solvers/small.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

namespace deq::small {
namespace {

using at::Tensor;

/// Cholesky solve of the scaled problem; false where it breaks down.
/// With D = diag(H), a = D^-1/2 y and C = D^-1/2 H D^-1/2 + ridge I, the solution is y ~ C^-1
/// D^-1/2 1.
bool mixture(const double* H, int64_t m, double ridge, double* a, std::vector<double>& work) {
  work.resize(size_t(m * m + 2 * m));
  double* C = work.data();
  double* scale = C + m * m;
  double* y = scale + m;
  for (int64_t i = 0; i < m; ++i) {
    const double d = H[i * m + i];
    if (!(d > 0) || !std::isfinite(d)) return false;
    scale[i] = 1 / std::sqrt(d);
  }
  const double largest = *std::max_element(scale, scale + m);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = H[i * m + j] * scale[i] * scale[j] + (i == j ? ridge : 0.0);
      for (int64_t k = 0; k < j; ++k) sum -= C[i * m + k] * C[j * m + k];
      if (i == j) {
        if (!(sum > 1e-14)) return false;
        C[i * m + i] = std::sqrt(sum);
      } else {
        C[i * m + j] = sum / C[j * m + j];
      }
    }
  }
  for (int64_t i = 0; i < m; ++i) {
    double sum = scale[i] / largest;
    for (int64_t k = 0; k < i; ++k) sum -= C[i * m + k] * y[k];
    y[i] = sum / C[i * m + i];
  }
  double total = 0;
  for (int64_t i = m - 1; i >= 0; --i) {
    double sum = y[i];
    for (int64_t k = i + 1; k < m; ++k) sum -= C[k * m + i] * y[k];
    y[i] = sum / C[i * m + i];
  }
  for (int64_t i = 0; i < m; ++i) total += a[i] = y[i] * scale[i];
  if (!std::isfinite(total) || total == 0) return false;
  for (int64_t i = 0; i < m; ++i) a[i] /= total;
  return true;
}

/// Gaussian elimination with partial pivoting, in place; false where a pivot vanishes.
bool eliminate(double* M, double* x, int64_t m) {
  double norm = 0;
  for (int64_t i = 0; i < m * m; ++i) norm = std::max(norm, std::abs(M[i]));
  if (!std::isfinite(norm)) return false;
  for (int64_t c = 0; c < m; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < m; ++r) {
      if (std::abs(M[r * m + c]) > std::abs(M[pivot * m + c])) pivot = r;
    }
    if (!(std::abs(M[pivot * m + c]) > 1e-300)) return false;
    if (pivot != c) {
      for (int64_t k = 0; k < m; ++k) std::swap(M[c * m + k], M[pivot * m + k]);
      std::swap(x[c], x[pivot]);
    }
    for (int64_t r = c + 1; r < m; ++r) {
      const double factor = M[r * m + c] / M[c * m + c];
      if (factor == 0) continue;
      for (int64_t k = c; k < m; ++k) M[r * m + k] -= factor * M[c * m + k];
      x[r] -= factor * x[c];
    }
  }
  for (int64_t r = m - 1; r >= 0; --r) {
    for (int64_t k = r + 1; k < m; ++k) x[r] -= M[r * m + k] * x[k];
    x[r] /= M[r * m + r];
  }
  for (int64_t r = 0; r < m; ++r) {
    if (!std::isfinite(x[r])) return false;
  }
  return true;
}

constexpr int64_t kGrain = 64;

Tensor on_cpu(const Tensor& t) { return t.to(at::kCPU).contiguous(); }

}  // namespace

Tensor least_mixture(const Tensor& H, double ridge, int64_t newest) {
  const Tensor from = on_cpu(H);
  const int64_t rows = from.size(0), m = from.size(1);
  Tensor out = at::zeros({rows, m}, from.options());
  const double* h = from.data_ptr<double>();
  double* a = out.data_ptr<double>();
  at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<double> work;
    for (int64_t r = begin; r < end; ++r) {
      if (mixture(h + r * m * m, m, ridge, a + r * m, work)) continue;
      std::fill(a + r * m, a + (r + 1) * m, 0.0);
      a[r * m + newest] = 1;
    }
  });
  return out.to(H.device());
}

Tensor solve_or_zero(const Tensor& M, const Tensor& b) {
  Tensor matrix = on_cpu(M).clone(), x = on_cpu(b).clone();
  const int64_t rows = x.size(0), m = x.size(1);
  double* p = matrix.data_ptr<double>();
  double* q = x.data_ptr<double>();
  at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (!eliminate(p + r * m * m, q + r * m, m)) std::fill(q + r * m, q + (r + 1) * m, 0.0);
    }
  });
  return x.to(b.device());
}

Tensor accumulate(const Tensor& H, const Layout& layout, double decay) {
  Tensor sums = on_cpu(H).clone();
  const int64_t T = layout.positions, mm = sums.size(1) * sums.size(2);
  double* s = sums.data_ptr<double>();
  const bool backward = layout.order == Order::Backward;
  for (int64_t b = 0; b < layout.batch; ++b) {
    for (int64_t step = 1; step < T; ++step) {
      const int64_t t = backward ? T - 1 - step : step;
      const double* before = s + (b * T + (backward ? t + 1 : t - 1)) * mm;
      double* here = s + (b * T + t) * mm;
      for (int64_t k = 0; k < mm; ++k) here[k] += decay * before[k];
    }
  }
  return sums.to(H.device());
}

}  // namespace deq::small
