#include "deq/ops/lu.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <utility>

namespace deq::ops {

using at::Tensor;

namespace {

template <class T>
void factor_one(T* m, int32_t* pivots, int64_t n) {
  for (int64_t k = 0; k < n; ++k) {
    int64_t best = k;
    for (int64_t i = k + 1; i < n; ++i) {
      if (std::abs(m[i * n + k]) > std::abs(m[best * n + k])) best = i;
    }
    pivots[k] = int32_t(best);
    if (best != k) {
      for (int64_t j = 0; j < n; ++j) std::swap(m[k * n + j], m[best * n + j]);
    }
    const T inverse = T(1) / m[k * n + k];
    for (int64_t i = k + 1; i < n; ++i) {
      const T factor = m[i * n + k] *= inverse;
      if (factor == 0) continue;
      for (int64_t j = k + 1; j < n; ++j) m[i * n + j] -= factor * m[k * n + j];
    }
  }
}

template <class T>
void solve_one(const T* m, const int32_t* pivots, T* b, int64_t n) {
  for (int64_t k = 0; k < n; ++k) std::swap(b[k], b[pivots[k]]);
  for (int64_t i = 1; i < n; ++i) {
    T sum = b[i];
    for (int64_t j = 0; j < i; ++j) sum -= m[i * n + j] * b[j];
    b[i] = sum;
  }
  for (int64_t i = n; i-- > 0;) {
    T sum = b[i];
    for (int64_t j = i + 1; j < n; ++j) sum -= m[i * n + j] * b[j];
    b[i] = sum / m[i * n + i];
  }
}

template <class Work>
void over_rows(int64_t rows, int64_t work, const Work& one) {
  constexpr int64_t kGrain = 1 << 14;
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)),
                   [&](int64_t first, int64_t last) {
                     for (int64_t r = first; r < last; ++r) one(r);
                   });
}

}  // namespace

void RowFactors::factor(const Tensor& M, int64_t rows) {
  rows_ = rows;
  const int64_t n = M.size(1);
  if (!M.is_cpu()) {
    auto [lu, pivots, info] = at::linalg_lu_factor_ex(M.narrow(0, 0, rows));
    lu_ = lu;
    pivots_ = pivots;
    return;
  }
  lu_ = M;
  if (!pivots_.defined() || pivots_.size(0) < M.size(0))
    pivots_ = at::empty({M.size(0), n}, at::kInt);
  AT_DISPATCH_FLOATING_TYPES(M.scalar_type(), "factor", [&] {
    scalar_t* m = M.data_ptr<scalar_t>();
    int32_t* pivots = pivots_.data_ptr<int32_t>();
    over_rows(rows, n * n * n, [&](int64_t r) { factor_one(m + r * n * n, pivots + r * n, n); });
  });
}

void RowFactors::solve(const Tensor& b) const {
  const int64_t n = b.size(1);
  if (!b.is_cpu()) {
    const Tensor own = b.narrow(0, 0, rows_);
    own.copy_(at::linalg_lu_solve(lu_, pivots_, own.unsqueeze(2)).squeeze(2));
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(b.scalar_type(), "solve", [&] {
    const scalar_t* m = lu_.data_ptr<scalar_t>();
    const int32_t* pivots = pivots_.data_ptr<int32_t>();
    scalar_t* x = b.data_ptr<scalar_t>();
    over_rows(rows_, n * n,
              [&](int64_t r) { solve_one(m + r * n * n, pivots + r * n, x + r * n, n); });
  });
}

}  // namespace deq::ops
