#include "deq/layers/exact_factor.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace deq {
namespace {

constexpr double kRank = 1e-11;       // of a row, as a share of the largest
constexpr double kCurvature = 1e-12;  // of Z'QZ, as a share of Q's largest entry

double dot(const double* x, const double* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}
void add(double a, const double* x, int64_t n, double* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}
double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double value : x) most = std::max(most, std::fabs(value));
  return most;
}

/// L of M = L L', by rows, in place of M (r, r).
void cholesky(std::vector<double>& M, int64_t r) {
  for (int64_t i = 0; i < r; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double sum = M[size_t(i * r + j)] - dot(&M[size_t(i * r)], &M[size_t(j * r)], j);
      M[size_t(i * r + j)] = j < i ? sum / M[size_t(j * r + j)] : std::sqrt(std::max(sum, 1e-300));
    }
  }
}
/// x = (L L')^-1 x for the leading `count` of L (r, r).
void solve_cholesky(const std::vector<double>& L, int64_t r, int64_t count, double* x) {
  for (int64_t i = 0; i < count; ++i)
    x[i] = (x[i] - dot(&L[size_t(i * r)], x, i)) / L[size_t(i * r + i)];
  for (int64_t i = count - 1; i >= 0; --i) {
    for (int64_t j = i + 1; j < count; ++j) x[i] -= L[size_t(j * r + i)] * x[j];
    x[i] /= L[size_t(i * r + i)];
  }
}

}  // namespace

ExactFactor::ExactFactor(const ops::QuadraticShape& shape, const ops::QuadraticData& data,
                         std::vector<int64_t> rows, std::vector<double> weights)
    : n_(shape.n),
      rows_(std::move(rows)),
      weights_(std::move(weights)),
      Q_(data.Q, data.Q + shape.n * shape.n) {
  for (double& x : Q_) x *= data.curvature;
  C_.reserve(rows_.size() * size_t(n_));
  for (const int64_t r : rows_) {
    const double* const row = r < shape.p ? data.A + r * n_ : data.G + (r - shape.p) * n_;
    C_.insert(C_.end(), row, row + n_);
  }
  factor_rows();
  factor_curvature();
  find_freedom();
}

void ExactFactor::factor_rows() {
  const int64_t k = int64_t(rows_.size());
  R_ = C_;  // C' by columns
  order_.resize(size_t(k));
  std::iota(order_.begin(), order_.end(), 0);
  H_.assign(size_t(n_ * n_), 0);
  for (int64_t i = 0; i < n_; ++i) H_[size_t(i * n_ + i)] = 1;
  double most = 0;
  const auto column = [&](int64_t j) { return &R_[size_t(j * n_)]; };
  for (; rank_ < std::min(n_, k); ++rank_) {
    int64_t best = rank_;
    double size = -1;
    for (int64_t j = rank_; j < k; ++j) {
      const double own = dot(column(j) + rank_, column(j) + rank_, n_ - rank_);
      if (own > size * (1 + 1e-8)) best = j, size = own;
    }
    size = std::sqrt(size);
    most = std::max(most, size);
    if (!(size > kRank * most)) break;
    if (best != rank_) {
      std::swap_ranges(column(best), column(best) + n_, column(rank_));
      std::swap(order_[size_t(best)], order_[size_t(rank_)]);
    }
    double* const own = column(rank_) + rank_;
    std::vector<double> v(own, own + (n_ - rank_));
    const double head = own[0] > 0 ? -size : size;
    v[0] -= head;
    const double square = dot(v.data(), v.data(), n_ - rank_);
    const auto reflect = [&](double* x) {
      add(-2 * dot(v.data(), x, n_ - rank_) / square, v.data(), n_ - rank_, x);
    };
    for (int64_t j = rank_ + 1; j < k; ++j) reflect(column(j) + rank_);
    std::fill(own, own + (n_ - rank_), 0.0);
    own[0] = head;
    for (int64_t i = 0; i < n_; ++i) reflect(&H_[size_t(i * n_ + rank_)]);  // H by rows
  }
  // By columns from here on.
  for (int64_t i = 0; i < n_; ++i)
    for (int64_t j = 0; j < i; ++j) std::swap(H_[size_t(i * n_ + j)], H_[size_t(j * n_ + i)]);
}

void ExactFactor::factor_curvature() {
  const int64_t r = n_ - rank_;
  const double bound = kCurvature * std::max(largest(Q_), 1e-300);
  std::vector<double> M(size_t(r * r)), product(static_cast<size_t>(n_));
  for (int64_t j = 0; j < r; ++j) {
    const double* const z = &H_[size_t((rank_ + j) * n_)];
    for (int64_t i = 0; i < n_; ++i) product[size_t(i)] = dot(&Q_[size_t(i * n_)], z, n_);
    for (int64_t i = 0; i < r; ++i)
      M[size_t(i * r + j)] = dot(&H_[size_t((rank_ + i) * n_)], product.data(), n_);
  }
  pivots_.resize(size_t(r));
  std::iota(pivots_.begin(), pivots_.end(), 0);
  L_.assign(size_t(r * r), 0);
  std::vector<double> left(static_cast<size_t>(r));
  for (int64_t i = 0; i < r; ++i) left[size_t(i)] = M[size_t(i * r + i)];
  for (curved_ = 0; curved_ < r; ++curved_) {
    int64_t best = curved_;
    for (int64_t i = curved_; i < r; ++i) {
      if (left[size_t(pivots_[size_t(i)])] > left[size_t(pivots_[size_t(best)])]) best = i;
      if (left[size_t(pivots_[size_t(i)])] < -100 * bound) concave_ = true;
    }
    std::swap(pivots_[size_t(best)], pivots_[size_t(curved_)]);
    for (int64_t j = 0; j < curved_; ++j)
      std::swap(L_[size_t(best * r + j)], L_[size_t(curved_ * r + j)]);
    const int64_t p = pivots_[size_t(curved_)];
    if (!(left[size_t(p)] > bound)) break;
    const double root = std::sqrt(left[size_t(p)]);
    L_[size_t(curved_ * r + curved_)] = root;
    for (int64_t i = curved_ + 1; i < r; ++i) {
      const int64_t own = pivots_[size_t(i)];
      const double value =
          (M[size_t(own * r + p)] - dot(&L_[size_t(i * r)], &L_[size_t(curved_ * r)], curved_)) /
          root;
      L_[size_t(i * r + curved_)] = value;
      left[size_t(own)] -= value * value;
    }
  }
  unique_ = curved_ == r;
}

void ExactFactor::find_freedom() {
  const int64_t k = int64_t(rows_.size());
  for (int64_t j = rank_; j < k; ++j) {
    std::vector<double> own(size_t(k), 0.0),
        alpha(&R_[size_t(j * n_)], &R_[size_t(j * n_)] + rank_);
    for (int64_t i = rank_ - 1; i >= 0; --i) {
      for (int64_t l = i + 1; l < rank_; ++l)
        alpha[size_t(i)] -= R_[size_t(l * n_ + i)] * alpha[size_t(l)];
      alpha[size_t(i)] /= R_[size_t(i * n_ + i)];
      own[size_t(order_[size_t(i)])] = -alpha[size_t(i)];
    }
    own[size_t(order_[size_t(j)])] = 1;
    freedom_.push_back(std::move(own));
  }
  const int64_t f = int64_t(freedom_.size());
  gram_.resize(size_t(f * f));
  for (int64_t i = 0; i < f; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l)
        sum += weights_[size_t(l)] * weights_[size_t(l)] * freedom_[size_t(i)][size_t(l)] *
               freedom_[size_t(j)][size_t(l)];
      gram_[size_t(i * f + j)] = sum;
    }
  }
  cholesky(gram_, f);
}

/// Norms are of the program's own numbers: of a solution weight * y, of a right hand side
/// y / weight.
void ExactFactor::take_off(double* y, bool right_hand_side) const {
  const int64_t k = int64_t(rows_.size()), f = int64_t(freedom_.size());
  if (f == 0) return;
  std::vector<double> part(static_cast<size_t>(f));
  for (int64_t i = 0; i < f; ++i) {
    for (int64_t l = 0; l < k; ++l) {
      const double square = weights_[size_t(l)] * weights_[size_t(l)];
      part[size_t(i)] += (right_hand_side ? 1 : square) * freedom_[size_t(i)][size_t(l)] * y[l];
    }
  }
  solve_cholesky(gram_, f, f, part.data());
  for (int64_t i = 0; i < f; ++i) {
    for (int64_t l = 0; l < k; ++l) {
      const double square = weights_[size_t(l)] * weights_[size_t(l)];
      y[l] -= (right_hand_side ? square : 1) * part[size_t(i)] * freedom_[size_t(i)][size_t(l)];
    }
  }
}

void ExactFactor::to_least_norm(double* y) const { take_off(y, false); }

void ExactFactor::solve_once(double* x, double* y) const {
  const int64_t k = int64_t(rows_.size()), r = n_ - rank_;
  std::vector<double> u(static_cast<size_t>(n_)), product(static_cast<size_t>(n_)),
      w(static_cast<size_t>(n_)), part(static_cast<size_t>(r));
  // R11' u1 = g.
  for (int64_t i = 0; i < rank_; ++i)
    u[size_t(i)] =
        (y[order_[size_t(i)]] - dot(&R_[size_t(i * n_)], u.data(), i)) / R_[size_t(i * n_ + i)];
  for (int64_t j = 0; j < rank_; ++j) add(u[size_t(j)], &H_[size_t(j * n_)], n_, w.data());
  for (int64_t i = 0; i < n_; ++i)
    product[size_t(i)] = x[i] - dot(&Q_[size_t(i * n_)], w.data(), n_);
  for (int64_t i = 0; i < curved_; ++i)
    part[size_t(i)] = dot(&H_[size_t((rank_ + pivots_[size_t(i)]) * n_)], product.data(), n_);
  solve_cholesky(L_, r, curved_, part.data());
  for (int64_t i = 0; i < curved_; ++i)
    add(part[size_t(i)], &H_[size_t((rank_ + pivots_[size_t(i)]) * n_)], n_, w.data());
  for (int64_t i = 0; i < n_; ++i)
    product[size_t(i)] = x[i] - dot(&Q_[size_t(i * n_)], w.data(), n_);
  std::fill(y, y + k, 0.0);
  for (int64_t i = rank_ - 1; i >= 0; --i) {
    double sum = dot(&H_[size_t(i * n_)], product.data(), n_);
    for (int64_t l = i + 1; l < rank_; ++l) sum -= R_[size_t(l * n_ + i)] * y[order_[size_t(l)]];
    y[order_[size_t(i)]] = sum / R_[size_t(i * n_ + i)];
  }
  std::copy(w.begin(), w.end(), x);
}

void ExactFactor::residual(const double* f, const double* g, const double* x, const double* y,
                           double* rf, double* rg) const {
  const int64_t k = int64_t(rows_.size());
  for (int64_t i = 0; i < n_; ++i) rf[i] = f[i] - dot(&Q_[size_t(i * n_)], x, n_);
  for (int64_t j = 0; j < k; ++j) {
    add(-y[j], &C_[size_t(j * n_)], n_, rf);
    rg[j] = g[j] - dot(&C_[size_t(j * n_)], x, n_);
  }
}

double ExactFactor::solve(double* x, double* y, Dependent how) const {
  const int64_t k = int64_t(rows_.size());
  if (how == Dependent::LeastNorm) take_off(y, true);
  const std::vector<double> f(x, x + n_), g(y, y + k);
  std::vector<double> rf(static_cast<size_t>(n_)), rg(static_cast<size_t>(k));
  solve_once(x, y);
  residual(f.data(), g.data(), x, y, rf.data(), rg.data());
  solve_once(rf.data(), rg.data());
  add(1, rf.data(), n_, x);
  add(1, rg.data(), k, y);
  if (how == Dependent::LeastNorm) take_off(y, false);
  residual(f.data(), g.data(), x, y, rf.data(), rg.data());
  if (how == Dependent::Some)  // their right hand sides are nobody's
    for (int64_t j = rank_; j < k; ++j) rg[size_t(order_[size_t(j)])] = 0;
  return std::max(largest(rf), largest(rg));
}

}  // namespace deq
