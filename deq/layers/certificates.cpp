#include "deq/layers/certificates.h"

#include <algorithm>
#include <cmath>

#include "deq/layers/dense_vector.h"
#include "deq/layers/plain_program.h"

namespace deq {
namespace {

// What a certificate leaves over, as a share of what it shows.
constexpr double kExact = 1e-8;
constexpr double kShows = 1e-10;  // of its terms' sizes

std::vector<double> to_one(std::vector<double> x) {
  const double most = largest(x);
  if (!(most > 0) || !std::ranges::all_of(x, [](double value) { return std::isfinite(value); }))
    return {};
  for (double& value : x) value /= most;
  return x;
}

}  // namespace

std::vector<double> farkas_vector(const ScaledProgram& program,
                                  const ops::QuadraticLimits& limits) {
  const auto [n, p, m] = program.shape();
  const int64_t k = p + m;
  if (k == 0) return {};
  const ops::QuadraticData data = program.data();
  PlainProgram proof(k);
  for (int64_t r = 0; r < k; ++r) {
    proof.curve(r, 1);
    proof.q[size_t(r)] = r < p ? data.b[r] : data.h[r - p];
  }
  const auto entry = [&](int64_t r, int64_t j) {
    return r < p ? data.A[r * n + j] : data.G[(r - p) * n + j];
  };
  std::vector<double> row(static_cast<size_t>(k));
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t r = 0; r < k; ++r) row[size_t(r)] = entry(r, j);
    proof.equal(row.data(), 0);
  }
  for (int64_t r = p; r < k; ++r) {
    std::ranges::fill(row, 0.0);
    row[size_t(r)] = -1;
    proof.below(row.data(), 0);
  }
  std::vector<double> y = proof.solve(limits);
  if (y.empty()) return {};
  for (const int64_t r : program.absent()) y[size_t(p + r)] = 0;  // rounding is not: h is infinite
  y = to_one(std::move(y));
  if (y.empty()) return {};
  double shown = 0, terms = 0, left = 0;
  for (int64_t r = 0; r < k; ++r) {
    double& own = y[size_t(r)];
    if (r >= p) own = std::max(own, 0.0);
    const double term = own * (r < p ? data.b[r] : data.h[r - p]);
    shown -= term;
    terms += std::fabs(term);
  }
  for (int64_t j = 0; j < n; ++j) {
    double sum = 0;
    for (int64_t r = 0; r < k; ++r) sum += entry(r, j) * y[size_t(r)];
    left = std::max(left, std::fabs(sum));
  }
  if (!(shown > kShows * terms) || !(left <= kExact * shown)) return {};
  for (int64_t r = 0; r < k; ++r)
    if (y[size_t(r)] != 0) y[size_t(r)] *= program.multiplier(r);
  return to_one(std::move(y));
}

std::vector<double> ray(const ScaledProgram& program, const ops::QuadraticLimits& limits) {
  const auto [n, p, m] = program.shape();
  const ops::QuadraticData data = program.data();
  PlainProgram proof(n);
  for (int64_t j = 0; j < n; ++j) {
    proof.curve(j, 1);
    proof.q[size_t(j)] = data.q[j];
    if (!program.matrices().flat) proof.equal(data.Q + j * n, 0);
  }
  for (int64_t r = 0; r < p; ++r) proof.equal(data.A + r * n, 0);
  for (int64_t r = 0; r < m; ++r) proof.below(data.G + r * n, 0);
  std::vector<double> d = to_one(proof.solve(limits));
  if (d.empty()) return {};
  const double shown = -dot(data.q, d.data(), n);
  double terms = 0, left = 0;
  for (int64_t j = 0; j < n; ++j) terms += std::fabs(data.q[j] * d[size_t(j)]);
  for (int64_t j = 0; j < n; ++j)
    left = std::max(left, data.curvature * std::fabs(dot(data.Q + j * n, d.data(), n)));
  for (int64_t r = 0; r < p; ++r)
    left = std::max(left, std::fabs(dot(data.A + r * n, d.data(), n)));
  for (int64_t r = 0; r < m; ++r) left = std::max(left, dot(data.G + r * n, d.data(), n));
  if (!(shown > kShows * terms) || !(left <= kExact * std::max(shown, 1e-6))) return {};
  for (int64_t j = 0; j < n; ++j) d[size_t(j)] *= program.matrices().D[size_t(j)];
  return to_one(std::move(d));
}

std::vector<double> negative_curvature(const ScaledProgram& program, double share) {
  const int64_t n = program.shape().n;
  const std::vector<double>& Q = program.matrices().Q;
  const double shift = share * largest(Q);
  std::vector<double> L(size_t(n * n), 0.0), d(size_t(n), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    double* const row = &L[size_t(i * n)];
    for (int64_t j = 0; j < i; ++j)
      row[j] = (Q[size_t(i * n + j)] - dot(row, &L[size_t(j * n)], j)) / L[size_t(j * n + j)];
    const double pivot = Q[size_t(i * n + i)] + shift - dot(row, row, i);
    if (pivot > 1e-16 * shift) {
      row[i] = std::sqrt(pivot);
      continue;
    }
    // d = (-L^-T row, 1): d'(Q + shift I)d is the pivot.
    d[size_t(i)] = 1;
    for (int64_t j = i - 1; j >= 0; --j) {
      double sum = -row[j];
      for (int64_t l = j + 1; l < i; ++l) sum -= L[size_t(l * n + j)] * d[size_t(l)];
      d[size_t(j)] = sum / L[size_t(j * n + j)];
    }
    for (int64_t j = 0; j < n; ++j) d[size_t(j)] *= program.matrices().D[size_t(j)];
    return to_one(std::move(d));
  }
  return {};
}

}  // namespace deq
