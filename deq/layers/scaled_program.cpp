#include "deq/layers/scaled_program.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace deq {
namespace {

using ops::QuadraticShape;

bool all_finite(const double* x, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite &= std::fabs(x[i]) <= std::numeric_limits<double>::max();
  return finite;
}

/// Four at a time: one after the other, each would wait for the one before it.
double largest(const double* x, int64_t n) {
  double most[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; ++k) most[k] = std::max(most[k], std::fabs(x[i + k]));
  for (; i < n; ++i) most[0] = std::max(most[0], std::fabs(x[i]));
  return std::max(std::max(most[0], most[1]), std::max(most[2], most[3]));
}
double largest(const std::vector<double>& x) { return largest(x.data(), int64_t(x.size())); }

/// The largest entries of rows and columns, times what they are scaled by.
struct Sizes {
  std::vector<double> columns, equalities, inequalities;

  explicit Sizes(const ScaledMatrices& s)
      : columns(size_t(s.shape.n)), equalities(size_t(s.shape.p)), inequalities(size_t(s.shape.m)) {
    const auto see = [&](const std::vector<double>& M, std::vector<double>& rows) {
      const int64_t n = int64_t(columns.size());
      for (size_t i = 0; i < rows.size(); ++i) {
        const double* const row = M.data() + int64_t(i) * n;
        rows[i] = largest(row, n);
        for (int64_t j = 0; j < n; ++j)
          columns[size_t(j)] = std::max(columns[size_t(j)], std::fabs(row[j]));
      }
    };
    see(s.A, equalities);
    see(s.G, inequalities);
    std::vector<double> own(size_t(s.shape.n));
    see(s.Q, own);
  }
  bool even() const {
    const auto near = [](double x) { return x == 0 || (x > 1.0 / 16 && x < 16); };
    return std::ranges::all_of(columns, near) && std::ranges::all_of(equalities, near) &&
           std::ranges::all_of(inequalities, near);
  }
};

/// M = diag(rows) M diag(columns), and the same of what they were scaled by so far.
void scale(std::vector<double>& M, const std::vector<double>& rows,
           const std::vector<double>& columns) {
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t j = 0; j < columns.size(); ++j) M[i * columns.size() + j] *= rows[i] * columns[j];
}
void times(std::vector<double>& x, const std::vector<double>& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] *= y[i];
}
std::vector<double> inverse_roots(std::vector<double> sizes) {
  for (double& x : sizes) x = inverse_power(std::sqrt(x));
  return sizes;
}

void equilibrate(ScaledMatrices& s) {
  const std::vector<double> none(size_t(s.shape.n), 1.0);
  const auto size_of_Q = [&] {
    const double most = largest(s.Q);
    s.flat = most == 0;
    const double by = inverse_power(most);
    if (by != 1)
      for (double& x : s.Q) x *= by;
    s.c *= by;
  };
  for (int round = 0; round < 12; ++round) {
    size_of_Q();
    const Sizes sizes(s);
    if (sizes.even()) break;
    const std::vector<double> columns = inverse_roots(sizes.columns),
                              equalities = inverse_roots(sizes.equalities),
                              inequalities = inverse_roots(sizes.inequalities);
    scale(s.Q, columns, columns);
    scale(s.A, equalities, columns);
    scale(s.G, inequalities, columns);
    times(s.D, columns);
    times(s.E, equalities);
    times(s.F, inequalities);
  }
  const auto rows_to_one = [&](std::vector<double>& M, std::vector<double>& by) {
    for (size_t i = 0; i < by.size(); ++i) {
      double* const row = M.data() + i * none.size();
      const double factor = inverse_power(largest(row, int64_t(none.size())));
      if (factor == 1) continue;
      for (size_t j = 0; j < none.size(); ++j) row[j] *= factor;
      by[i] *= factor;
    }
  };
  rows_to_one(s.A, s.E);
  rows_to_one(s.G, s.F);
  size_of_Q();
}

}  // namespace

double inverse_power(double x) {
  if (!(x > 0) || !std::isfinite(x)) return 1;
  return std::ldexp(1.0, -std::clamp(std::ilogb(x), -300, 300));
}

ScaledMatrices::ScaledMatrices(const QuadraticShape& given, const double* Q_, const double* A_,
                               const double* G_)
    : Scales(given),
      Q(size_t(given.n * given.n)),
      A(A_, A_ + given.p * given.n),
      G(G_, G_ + given.m * given.n) {
  const int64_t n = shape.n;
  finite = all_finite(Q_, n * n) && all_finite(A_, shape.p * n) && all_finite(G_, shape.m * n);
  if (!finite) return;
  for (int64_t i = 0; i < n; ++i) {
    Q[size_t(i * n + i)] = Q_[i * n + i];
    for (int64_t j = 0; j < i; ++j)
      Q[size_t(i * n + j)] = Q[size_t(j * n + i)] = 0.5 * Q_[i * n + j] + 0.5 * Q_[j * n + i];
  }
  equilibrate(*this);
}

ScaledVectors::ScaledVectors(const Scales& scales, const double* q, const double* b,
                             const double* h)
    : scales_(&scales),
      q_(q, q + scales.shape.n),
      b_(b, b + scales.shape.p),
      h_(h, h + scales.shape.m) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto [n, p, m] = scales.shape;
  finite_ = scales.finite && all_finite(q, n) && all_finite(b, p);
  for (int64_t i = 0; i < m; ++i) finite_ = finite_ && h[i] > -kInfinity;  // false for NaN
  if (!finite_) return;
  for (int64_t i = 0; i < m; ++i) {
    if (h[i] < kInfinity) continue;
    absent_.push_back(i);
    h_[size_t(i)] = 0;
  }
  times(q_, scales.D);
  times(b_, scales.E);
  times(h_, scales.F);
  const double gradient = largest(q_), curvature = scales.flat ? 0 : 1 / scales.c;
  double size = std::max(largest(b_), largest(h_));
  if (size == 0 && curvature > 0) size = gradient / curvature;
  tau_ = 1 / inverse_power(size);
  const double most = std::max(tau_ * tau_ * curvature, tau_ * gradient);
  kappa_ = inverse_power(std::sqrt(most));
  kappa_ *= kappa_;
  for (double& x : q_) x *= kappa_ * tau_;
  for (double& x : b_) x /= tau_;
  for (int64_t i = 0; i < m; ++i) h_[size_t(i)] = h[i] < kInfinity ? h_[size_t(i)] / tau_ : 1.0;
}

ScaledProgram::ScaledProgram(const ScaledMatrices& matrices, const double* q, const double* b,
                             const double* h)
    : ScaledVectors(matrices, q, b, h), matrices_(&matrices) {
  if (absent().empty()) return;
  const int64_t n = shape().n;
  bounded_ = matrices.G;
  for (const int64_t i : absent()) std::fill_n(bounded_.begin() + i * n, n, 0.0);
}

ops::QuadraticData ScaledProgram::data() const {
  const ScaledMatrices& s = *matrices_;
  return {s.Q.data(),
          q().data(),
          s.A.data(),
          b().data(),
          bounded_.empty() ? s.G.data() : bounded_.data(),
          h().data(),
          curvature()};
}

double ScaledVectors::multiplier(int64_t r) const {
  const int64_t p = scales_->shape.p;
  return (r < p ? scales_->E[size_t(r)] : scales_->F[size_t(r - p)]) / (kappa_ * tau_);
}

void ScaledVectors::unscale(double* z, double* nu, double* lam) const {
  const auto [n, p, m] = scales_->shape;
  for (int64_t i = 0; z && i < n; ++i) z[i] *= tau_ * scales_->D[size_t(i)];
  for (int64_t i = 0; nu && i < p; ++i) nu[i] *= multiplier(i);
  for (int64_t i = 0; lam && i < m; ++i) lam[i] *= multiplier(p + i);
}

void ScaledVectors::rescale(double* z, double* nu, double* lam) const {
  const auto [n, p, m] = scales_->shape;
  for (int64_t i = 0; z && i < n; ++i) z[i] /= tau_ * scales_->D[size_t(i)];
  for (int64_t i = 0; nu && i < p; ++i) nu[i] /= multiplier(i);
  for (int64_t i = 0; lam && i < m; ++i) lam[i] /= multiplier(p + i);
}

void ScaledVectors::transform(double* z, double* nu, double* lam) const {
  const auto [n, p, m] = scales_->shape;
  const double root = std::sqrt(kappa_) * tau_, per_root = 1 / root;
  for (int64_t i = 0; z && i < n; ++i) z[i] *= root * scales_->D[size_t(i)];
  for (int64_t i = 0; nu && i < p; ++i) nu[i] *= per_root * scales_->E[size_t(i)];
  for (int64_t i = 0; lam && i < m; ++i) lam[i] *= per_root * scales_->F[size_t(i)];
}

}  // namespace deq
