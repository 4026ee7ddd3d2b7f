#include "tests/layers/enumeration.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

namespace deq::testing {
namespace {

constexpr double kZero = 1e-8;

/// M x = r for a symmetric M (k, k) of any rank, by Jacobi's eigenvalues: x of least norm, or none.
std::optional<std::vector<double>> solve(std::vector<double> M, int64_t k,
                                         const std::vector<double>& r) {
  std::vector<double> V(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) V[size_t(i * k + i)] = 1;
  const auto at = [&](std::vector<double>& X, int64_t i, int64_t j) -> double& {
    return X[size_t(i * k + j)];
  };
  for (int sweep = 0; sweep < 30; ++sweep) {
    double off = 0;
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < i; ++j) off += at(M, i, j) * at(M, i, j);
    if (off < 1e-26) break;
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        if (std::abs(at(M, i, j)) < 1e-300) continue;
        const double theta = (at(M, j, j) - at(M, i, i)) / (2 * at(M, i, j));
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (int64_t l = 0; l < k; ++l) {
          const double x = at(M, l, i), y = at(M, l, j);
          at(M, l, i) = c * x - s * y, at(M, l, j) = s * x + c * y;
        }
        for (int64_t l = 0; l < k; ++l) {
          const double x = at(M, i, l), y = at(M, j, l);
          at(M, i, l) = c * x - s * y, at(M, j, l) = s * x + c * y;
        }
        for (int64_t l = 0; l < k; ++l) {
          const double x = at(V, l, i), y = at(V, l, j);
          at(V, l, i) = c * x - s * y, at(V, l, j) = s * x + c * y;
        }
      }
    }
  }
  std::vector<double> found(static_cast<size_t>(k));
  for (int64_t j = 0; j < k; ++j) {
    double part = 0;
    for (int64_t i = 0; i < k; ++i) part += at(V, i, j) * r[size_t(i)];
    if (std::abs(at(M, j, j)) < kZero) {
      if (std::abs(part) > 1e-7) return std::nullopt;
      continue;
    }
    for (int64_t i = 0; i < k; ++i) found[size_t(i)] += at(V, i, j) * part / at(M, j, j);
  }
  return found;
}

double dot(const double* x, const double* y, int64_t n) {
  return std::inner_product(x, x + n, y, 0.0);
}

}  // namespace

double SmallProgram::objective(const double* z) const {
  double sum = dot(q.data(), z, n);
  for (int64_t i = 0; i < n; ++i) sum += 0.5 * z[i] * dot(&Q[size_t(i * n)], z, n);
  return sum;
}

double SmallProgram::violation(const double* z) const {
  double most = 0;
  for (int64_t r = 0; r < p; ++r)
    most = std::max(most, std::abs(dot(&A[size_t(r * n)], z, n) - b[size_t(r)]));
  for (int64_t r = 0; r < m; ++r)
    most = std::max(most, dot(&G[size_t(r * n)], z, n) - h[size_t(r)]);
  return most;
}

Enumerated enumerate(const SmallProgram& program) {
  const int64_t n = program.n, p = program.p, m = program.m;
  Enumerated found;
  for (uint32_t set = 0; set < (1u << m); ++set) {
    std::vector<const double*> rows;
    std::vector<double> right;
    for (int64_t r = 0; r < p; ++r)
      rows.push_back(&program.A[size_t(r * n)]), right.push_back(program.b[size_t(r)]);
    for (int64_t r = 0; r < m; ++r) {
      if (!(set >> r & 1)) continue;
      rows.push_back(&program.G[size_t(r * n)]), right.push_back(program.h[size_t(r)]);
    }
    const int64_t active = int64_t(rows.size()) - p, k = n + int64_t(rows.size());
    if (active > n) continue;
    std::vector<double> K(static_cast<size_t>(k * k)), side(static_cast<size_t>(k));
    for (int64_t i = 0; i < n; ++i) {
      side[size_t(i)] = -program.q[size_t(i)];
      for (int64_t j = 0; j < n; ++j) K[size_t(i * k + j)] = program.Q[size_t(i * n + j)];
      for (size_t r = 0; r < rows.size(); ++r)
        K[size_t(i * k) + size_t(n) + r] = K[(size_t(n) + r) * size_t(k) + size_t(i)] = rows[r][i];
    }
    std::copy(right.begin(), right.end(), side.begin() + n);
    const auto solved = solve(K, k, side);
    if (!solved || program.violation(solved->data()) > 1e-7) continue;
    bool right_signs = true;
    for (int64_t r = 0; r < active; ++r) right_signs &= (*solved)[size_t(n + p + r)] > -1e-7;
    if (!right_signs) continue;
    found.z.emplace_back(solved->begin(), solved->begin() + n);
  }
  return found;
}

bool feasible(const SmallProgram& program) {
  SmallProgram nearest = program;
  std::ranges::fill(nearest.Q, 0.0);
  std::ranges::fill(nearest.q, 0.0);
  for (int64_t i = 0; i < program.n; ++i) nearest.Q[size_t(i * program.n + i)] = 1;
  return !enumerate(nearest).z.empty();
}

}  // namespace deq::testing
