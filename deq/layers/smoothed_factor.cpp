#include "deq/layers/smoothed_factor.h"

#include <algorithm>
#include <cmath>

#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

constexpr int kSteps = 100;
constexpr double kClose = 1e-11;

}  // namespace

SmoothedFactor::SmoothedFactor(const ScaledProgram& program, double kappa, std::vector<double> z0,
                               std::vector<double> nu0, std::vector<double> lam0)
    : z(std::move(z0)), nu(std::move(nu0)), lam(std::move(lam0)), program_(&program) {
  const auto [n, p, m] = program.shape();
  const ops::QuadraticData data = program.data();
  const double goal = kappa * program.objective();
  for (int64_t i = 0; i < m; ++i) {
    s_.push_back(std::max(data.h[i] - dot(data.G + i * n, z.data(), n), std::sqrt(goal)));
    lam[size_t(i)] = std::max(lam[size_t(i)], goal / s_.back());
  }
  std::vector<double> rp(static_cast<size_t>(p)), rg(static_cast<size_t>(m)), t(rg), dlam(rg),
      ds(rg);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<double> rd(data.q, data.q + n);
    for (int64_t i = 0; i < n; ++i)
      rd[size_t(i)] += data.curvature * dot(data.Q + i * n, z.data(), n);
    for (int64_t r = 0; r < p; ++r) {
      for (int64_t i = 0; i < n; ++i) rd[size_t(i)] += data.A[r * n + i] * nu[size_t(r)];
      rp[size_t(r)] = dot(data.A + r * n, z.data(), n) - data.b[r];
    }
    add_rows(lam, rd.data());
    double gap = 0;
    for (int64_t i = 0; i < m; ++i) {
      rg[size_t(i)] = dot(data.G + i * n, z.data(), n) + s_[size_t(i)] - data.h[i];
      gap = std::max(gap, std::fabs(s_[size_t(i)] * lam[size_t(i)] - goal) / goal);
    }
    factor();
    const double size = std::max({1.0, largest(lam), largest(nu), largest(z)});
    found = std::max({largest(rd), largest(rp), largest(rg)}) <= kClose * size && gap <= 1e-9;
    if (found) return;
    for (size_t k = 0; k < size_t(m); ++k) t[k] = lam[k] / s_[k] * (rg[k] - s_[k] + goal / lam[k]);
    for (double& x : rd) x = -x;
    std::vector<double> less = t;
    for (double& x : less) x = -x;
    add_rows(less, rd.data());
    for (double& x : rp) x = -x;
    factor_->solve(rd.data(), rp.data(), Dependent::LeastNorm);
    double far = 1;
    for (int64_t i = 0; i < m; ++i) {
      const size_t k = size_t(i);
      const double moved = dot(data.G + i * n, rd.data(), n);
      dlam[k] = lam[k] / s_[k] * moved + t[k];
      ds[k] = -rg[k] - moved;
      if (ds[k] < 0) far = std::min(far, -0.99 * s_[k] / ds[k]);
      if (dlam[k] < 0) far = std::min(far, -0.99 * lam[k] / dlam[k]);
    }
    for (int64_t i = 0; i < n; ++i) z[size_t(i)] += far * rd[size_t(i)];
    for (int64_t r = 0; r < p; ++r) nu[size_t(r)] += far * rp[size_t(r)];
    for (size_t k = 0; k < size_t(m); ++k) s_[k] += far * ds[k], lam[k] += far * dlam[k];
  }
}

void SmoothedFactor::factor() {
  const auto [n, p, m] = program_->shape();
  ops::QuadraticData data = program_->data();
  std::vector<double> Q(data.Q, data.Q + n * n);
  for (double& x : Q) x *= data.curvature;
  for (int64_t r = 0; r < m; ++r) {
    const double by = lam[size_t(r)] / s_[size_t(r)];
    const double* const row = data.G + r * n;
    for (int64_t i = 0; i < n; ++i) {
      if (row[i] == 0) continue;
      for (int64_t j = 0; j < n; ++j) Q[size_t(i * n + j)] += by * row[i] * row[j];
    }
  }
  data.Q = Q.data();
  data.curvature = 1;
  std::vector<int64_t> rows;
  std::vector<double> weights;
  for (int64_t r = 0; r < p; ++r) rows.push_back(r), weights.push_back(program_->multiplier(r));
  factor_ =
      std::make_unique<ExactFactor>(program_->shape(), data, std::move(rows), std::move(weights));
}

void SmoothedFactor::add_rows(const std::vector<double>& by, double* to) const {
  const int64_t n = program_->shape().n;
  const double* const G = program_->data().G;
  for (size_t r = 0; r < by.size(); ++r)
    for (int64_t i = 0; i < n; ++i) to[i] += by[r] * G[int64_t(r) * n + i];
}

double SmoothedFactor::solve(double* gz, double* gnu, double* glam) const {
  const auto [n, p, m] = program_->shape();
  const double* const G = program_->data().G;
  std::vector<double> by(static_cast<size_t>(m));
  for (size_t r = 0; r < by.size(); ++r) by[r] = lam[r] / s_[r] * glam[r];
  add_rows(by, gz);
  double size = 0;
  for (int64_t i = 0; i < n; ++i) size = std::max(size, std::fabs(gz[i]));
  for (int64_t r = 0; r < p; ++r) size = std::max(size, std::fabs(gnu[r]));
  const double left = factor_->solve(gz, gnu, Dependent::LeastNorm);
  for (int64_t r = 0; r < m; ++r)
    glam[r] = lam[size_t(r)] / s_[size_t(r)] * (dot(G + r * n, gz, n) - glam[r]);
  return size > 0 ? left / size : 0;
}

}  // namespace deq
