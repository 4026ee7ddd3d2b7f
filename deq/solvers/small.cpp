#include "deq/solvers/small.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

namespace deq::small {
namespace {

using at::Tensor;

constexpr double kSmallestSquare = 1e-280;  // squares below have lost digits, or are about to
constexpr double kDependent = 1e-14;        // a pivot below this share of its squares is round-off

struct Scratch {
  std::vector<double> numbers;
  std::vector<int64_t> kept;
};

/// With C = H + ridge diag(H) and a = e_n + sum_i y_i (e_i - e_n), n the newest, the constraint is
/// gone and R y = r remains, R_ij = C_ij - C_in - C_jn + C_nn, r_i = C_nn - C_in: Cholesky, from
/// the newest to the oldest of `age`. The residuals of an exact solution are dependent, so H itself
/// may be singular just when it matters most; what depends on newer iterates is left out. False
/// without a finite result.
bool mixture(const double* H, int64_t M, int64_t m, double ridge, int64_t newest, int64_t age,
             double* a, Scratch& scratch) {
  const double latest = (1 + ridge) * H[newest * M + newest];
  if (!(latest > kSmallestSquare) || !std::isfinite(latest)) return false;
  const auto reduced = [&](int64_t i, int64_t j) {
    const double cij = H[i * M + j] * (i == j ? 1 + ridge : 1.0);
    return cij - H[i * M + newest] - H[j * M + newest] + latest;
  };
  scratch.numbers.resize(size_t(m * m + 2 * m));
  double* L = scratch.numbers.data();  // below the diagonal, in the order of `kept`
  double* inverse = L + m * m;         // 1 / the diagonal
  double* y = inverse + m;
  std::vector<int64_t>& kept = scratch.kept;
  kept.clear();
  for (int64_t back = 1; back < std::min(m, age); ++back) {
    const int64_t i = newest >= back ? newest - back : newest + m - back,
                  row = int64_t(kept.size());
    double pivot = reduced(i, i);
    y[row] = latest - H[i * M + newest];
    for (int64_t k = 0; k < row; ++k) {
      double sum = reduced(i, kept[size_t(k)]);
      for (int64_t l = 0; l < k; ++l) sum -= L[row * m + l] * L[k * m + l];
      L[row * m + k] = sum * inverse[k];
      pivot -= L[row * m + k] * L[row * m + k];
      y[row] -= L[row * m + k] * y[k];
    }
    // A residual of exactly zero is one from before the positions that this one depends on moved.
    if (!(pivot > kDependent * (H[i * M + i] + latest)) || !(H[i * M + i] > 0)) continue;
    inverse[row] = 1 / std::sqrt(pivot);
    y[row] *= inverse[row];
    kept.push_back(i);
  }
  std::fill(a, a + m, 0.0);
  a[newest] = 1;
  for (int64_t row = int64_t(kept.size()) - 1; row >= 0; --row) {
    for (size_t k = size_t(row) + 1; k < kept.size(); ++k) y[row] -= L[int64_t(k) * m + row] * y[k];
    y[row] *= inverse[row];
    a[kept[size_t(row)]] = y[row];
    a[newest] -= y[row];
  }
  return std::isfinite(a[newest]);
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

void picard_step(int64_t m, int64_t newest, double* a) {
  std::fill(a, a + m, 0.0);
  a[newest] = 1;
}

/// The coefficients of one row, or the Picard step.
void mix_row(const double* S, int64_t M, const Mixture& options, int64_t age, double* a,
             Scratch& scratch) {
  const int64_t m = options.held, newest = options.newest;
  if (age > 1 && mixture(S, M, m, options.ridge, newest, age, a, scratch)) return;
  picard_step(m, newest, a);
}

}  // namespace

Tensor least_mixture(const Tensor& H, const Layout& layout, const Mixture& options,
                     const std::vector<char>& left_out, const std::vector<int64_t>& ages,
                     TensorPool* pool) {
  const int64_t rows = H.size(0), M = H.size(1), m = options.held;
  Tensor out = empty_from(pool, {rows, m}, H.options());
  const double* h = H.data_ptr<double>();
  double* a = out.data_ptr<double>();
  const auto mix = [&](int64_t r, const double* S, Scratch& scratch) {
    if (!left_out.empty() && left_out[size_t(r)]) return picard_step(m, options.newest, a + r * m);
    mix_row(S, M, options, ages.empty() ? m : ages[size_t(r)], a + r * m, scratch);
  };
  if (layout.scope != Scope::Causal) {
    at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
      Scratch scratch;
      for (int64_t r = begin; r < end; ++r) mix(r, h + r * M * M, scratch);
    });
    return out;
  }
  const int64_t T = layout.positions;
  const bool backward = layout.order == Order::Backward;
  const int64_t samples = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, T));
  at::parallel_for(0, layout.batch, samples, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    std::vector<double> sum(size_t(M * M));
    for (int64_t b = begin; b < end; ++b) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t step = 0; step < T; ++step) {
        const int64_t r = b * T + (backward ? T - 1 - step : step);
        const double* own = h + r * M * M;
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < m; ++j) {
            double& s = sum[size_t(i * M + j)];
            s = options.decay * s + own[i * M + j];
          }
        }
        mix(r, sum.data(), scratch);
      }
    }
  });
  return out;
}

Tensor with_room(const Tensor& H, int64_t rows, int64_t needed, int64_t memory) {
  const int64_t had = H.defined() ? H.size(1) : 0;
  if (had >= needed) return H;
  const int64_t M = std::min(memory, std::max<int64_t>({4, needed, 2 * had}));
  Tensor wider = at::zeros({rows, M, M}, at::kDouble);
  if (had > 0) wider.narrow(1, 0, had).narrow(2, 0, had).copy_(H);
  return wider;
}

Tensor solve_or_zero(const Tensor& M, const Tensor& b, int64_t first, TensorPool* pool) {
  const Tensor matrix = M.to(at::kCPU);
  const Tensor x = empty_from(pool, b.sizes(), b.options().device(at::kCPU)).copy_(b);
  const int64_t rows = x.size(0), m = x.size(1);
  const double* p = matrix.data_ptr<double>();
  double* q = x.data_ptr<double>();
  at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<double> own(size_t(m * m));  // of one row, which elimination destroys
    for (int64_t r = begin; r < end; ++r) {
      const double* const from = p + r * matrix.stride(0);
      for (int64_t i = 0; i < m; ++i) {
        const double* const row = from + (first + i) % m * matrix.stride(1);
        for (int64_t j = 0; j < m; ++j)
          own[size_t(i * m + j)] = row[(first + j) % m * matrix.stride(2)];
      }
      if (!eliminate(own.data(), q + r * m, m)) std::fill(q + r * m, q + (r + 1) * m, 0.0);
    }
  });
  return x.to(b.device());
}

}  // namespace deq::small
