#include "deq/layers/scaled_program.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace deq {
namespace {

using ops::QuadraticShape;

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
  const auto rows_to_one = [&](std::vector<double>& M, std::vector<double>& by,
                               std::vector<int64_t>& empty) {
    for (size_t i = 0; i < by.size(); ++i) {
      double* const row = M.data() + i * none.size();
      const double most = largest(row, int64_t(none.size())), factor = inverse_power(most);
      if (most == 0) empty.push_back(int64_t(i));
      if (factor == 1) continue;
      for (size_t j = 0; j < none.size(); ++j) row[j] *= factor;
      by[i] *= factor;
    }
  };
  rows_to_one(s.A, s.E, s.empty_A);
  rows_to_one(s.G, s.F, s.empty_G);
  size_of_Q();
}

}  // namespace

bool bring_into_range(double* x, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite &= std::fabs(x[i]) <= kLargestNumber;
    x[i] = std::fabs(x[i]) < kSmallestNumber ? 0 : x[i];
  }
  return finite;
}

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
  finite = bring_into_range(A.data(), shape.p * n) && bring_into_range(G.data(), shape.m * n);
  for (int64_t i = 0; i < n; ++i) {
    Q[size_t(i * n + i)] = Q_[i * n + i];
    for (int64_t j = 0; j < i; ++j)
      Q[size_t(i * n + j)] = Q[size_t(j * n + i)] = 0.5 * Q_[i * n + j] + 0.5 * Q_[j * n + i];
  }
  for (int64_t i = 0; i < n * n; ++i) finite &= std::fabs(Q_[i]) <= kLargestNumber;
  bring_into_range(Q.data(), n * n);
  if (finite) equilibrate(*this);
}

namespace {

/// From here on rows of G are far: behind a gap in the sizes of all sides, above which there are
/// no others. `size`: of z, where there are none below.
double far_from(const std::vector<double>& b, const std::vector<double>& h, double size) {
  constexpr double kGap = 1e6;
  double least = 0;  // no gap below: a row that z must come to, or may not
  for (const double x : b) least = std::max(least, std::fabs(x));
  for (const double x : h) least = std::max(least, -x);
  std::vector<double> sizes;
  for (const double x : h)
    if (x > least) sizes.push_back(x);
  std::ranges::sort(sizes);
  double below = least;
  for (const double x : sizes) {
    const double near = below > 0 ? below : size;
    if (near > 0 && x > kGap * near) return x;
    below = x;
  }
  return std::numeric_limits<double>::infinity();
}

}  // namespace

ScaledVectors::ScaledVectors(const Scales& scales, const double* q, const double* b,
                             const double* h, FarRows rows)
    : scales_(&scales),
      q_(q, q + scales.shape.n),
      b_(b, b + scales.shape.p),
      h_(h, h + scales.shape.m) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto [n, p, m] = scales.shape;
  for (int64_t i = 0; i < m; ++i) {
    if (!(h[i] > kLargestNumber)) continue;
    absent_.push_back(i);
    h_[size_t(i)] = 0;
  }
  finite_ = scales.finite && bring_into_range(q_.data(), n) && bring_into_range(b_.data(), p) &&
            bring_into_range(h_.data(), m);
  if (!finite_) return;
  const auto take_sign = [](std::vector<double>& sides, const std::vector<int64_t>& rows) {
    std::vector<double> signs;
    for (const int64_t r : rows) {
      double& own = sides[size_t(r)];
      signs.push_back(double(own > 0) - double(own < 0));
      own = 0;
    }
    return signs;
  };
  const std::vector<double> signs_b = take_sign(b_, scales.empty_A),
                            signs_h = take_sign(h_, scales.empty_G);
  times(q_, scales.D);
  times(b_, scales.E);
  times(h_, scales.F);
  const double gradient = largest(q_), curvature = scales.flat ? 0 : 1 / scales.c;
  const double from = rows == FarRows::Kept
                          ? kInfinity
                          : far_from(b_, h_, curvature > 0 ? gradient / curvature : 0);
  for (int64_t i = 0; i < m; ++i) {
    if (h_[size_t(i)] < from) continue;
    absent_.push_back(i);
    far_.push_back(i);
    h_[size_t(i)] = 0;
  }
  double size = std::max(largest(b_), largest(h_));
  if (size == 0 && curvature > 0) size = gradient / curvature;
  tau_ = 1 / inverse_power(size);
  const double most = std::max(tau_ * tau_ * curvature, tau_ * gradient);
  kappa_ = inverse_power(std::sqrt(most));
  kappa_ *= kappa_;
  for (double& x : q_) x *= kappa_ * tau_;
  for (double& x : b_) x /= tau_;
  for (double& x : h_) x /= tau_;
  for (const int64_t i : absent_) h_[size_t(i)] = 1;
  for (size_t k = 0; k < signs_b.size(); ++k) b_[size_t(scales.empty_A[k])] = signs_b[k];
  for (size_t k = 0; k < signs_h.size(); ++k)
    h_[size_t(scales.empty_G[k])] = signs_h[k] < 0 ? -1 : 1;
}

ScaledProgram::ScaledProgram(const ScaledMatrices& matrices, const double* q, const double* b,
                             const double* h, FarRows far)
    : ScaledVectors(matrices, q, b, h, far), matrices_(&matrices) {
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
  const auto times = [](double& x, double by) {  // 0 stays, whatever overflows
    if (x != 0) x *= by;
  };
  for (int64_t i = 0; z && i < n; ++i) times(z[i], tau_ * scales_->D[size_t(i)]);
  for (int64_t i = 0; nu && i < p; ++i) times(nu[i], multiplier(i));
  for (int64_t i = 0; lam && i < m; ++i) times(lam[i], multiplier(p + i));
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
