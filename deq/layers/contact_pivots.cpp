// One world's contacts as a linear complementarity problem, for Lemke's method.
#include <algorithm>
#include <cmath>

#include "deq/layers/contact_solver.h"
#include "deq/layers/dense_vector.h"
#include "deq/layers/lemke.h"

namespace deq {
namespace {

/// Unknowns: normal impulses, both directions of each tangent, and the speed along it, so that
///
///     w = A lam + d - c (+ speed in both directions),   w_speed = mu lam - up - down
///
/// `rows` of A, right = d - c: first the normals, then q tangents; `of`: their contacts.
struct Problem {
  std::vector<double> M, b;
  Problem(const std::vector<double>& A, const std::vector<double>& right,
          const std::vector<int64_t>& of, const std::vector<double>& bounds)
      : M(), b() {
    const auto k = int64_t(right.size()), q = int64_t(of.size()), normals = k - q, N = k + 2 * q;
    M.resize(size_t(N * N)), b.resize(size_t(N));
    const auto at = [&](int64_t i, int64_t j) -> double& { return M[size_t(i * N + j)]; };
    for (int64_t i = 0; i < k; ++i) {
      for (const int way : {1, -1}) {
        if (way < 0 && i < normals) continue;
        const int64_t row = way > 0 ? i : i + q;
        b[size_t(row)] = way * right[size_t(i)];
        for (int64_t j = 0; j < k; ++j) {
          at(row, j) = way * A[size_t(i * k + j)];
          if (j >= normals) at(row, j + q) = -at(row, j);
        }
      }
    }
    for (int64_t t = 0; t < q; ++t) {
      const int64_t up = normals + t, down = up + q, speed = down + q;
      at(up, speed) = at(down, speed) = 1;
      at(speed, of[size_t(t)]) = bounds[size_t(t)];
      at(speed, up) = at(speed, down) = -1;
    }
  }
};

}  // namespace

/// Joints are eliminated, all numbers scaled.
bool ContactSolver::by_pivots() {
  std::vector<int64_t> of, rows;
  std::vector<double> bounds;
  for (int64_t c = 0; c < count_; ++c) {
    rows.push_back(normal(c));
    if (!has_friction(c)) continue;
    of.push_back(c);
    bounds.push_back(mu_[size_t(c)] * rho_[size_t(normal(c))] / rho_[size_t(tangent(c))]);
  }
  for (const int64_t c : of) rows.push_back(tangent(c));
  const auto scaled = [&](int64_t r, int64_t s) {
    return rho_[size_t(r)] * a(r, s) * rho_[size_t(s)];
  };
  SquareFactor joints;
  std::vector<double> x(size_t(p_ * p_));
  for (int64_t i = 0; i < p_; ++i)
    for (int64_t j = 0; j < p_; ++j) x[size_t(i * p_ + j)] = scaled(i, j);
  joints.factor(x, p_);
  const auto k = int64_t(rows.size());
  const double unit = std::max(base_size_, 1e-300);
  std::vector<double> reduced(size_t(k * k)), right(static_cast<size_t>(k));
  const auto offset = [&](int64_t r) {
    return rho_[size_t(r)] * (d_[size_t(r)] - c_[size_t(r)]) / unit;
  };
  for (int64_t s = 0; s <= k; ++s) {  // the last column: d - c
    const auto column = [&](int64_t r) { return s < k ? scaled(r, rows[size_t(s)]) : offset(r); };
    for (int64_t j = 0; j < p_; ++j) x[size_t(j)] = column(j);
    joints.solve(x.data());
    for (int64_t i = 0; i < k; ++i) {
      double own = column(rows[size_t(i)]);
      for (int64_t j = 0; j < p_; ++j) own -= scaled(rows[size_t(i)], j) * x[size_t(j)];
      (s < k ? reduced[size_t(i * k + s)] : right[size_t(i)]) = own;
    }
  }
  const Problem problem(reduced, right, of, bounds);
  const Complementarity found =
      lemke(problem.M, problem.b, options_->stop.max_steps - answer_->steps);
  answer_->steps += found.pivots;
  if (!found.found) return false;
  std::vector<double> lam(static_cast<size_t>(rows_));
  for (int64_t i = 0; i < k; ++i) {
    const double down = i >= count_ ? found.z[size_t(i) + of.size()] : 0.0;
    lam[size_t(rows[size_t(i)])] =
        unit * (found.z[size_t(i)] - down) * rho_[size_t(rows[size_t(i)])];
  }
  for (int64_t j = 0; j < p_; ++j)
    x[size_t(j)] = rho_[size_t(j)] *
                   (c_[size_t(j)] - d_[size_t(j)] - dot(&A_[size_t(j * rows_)], lam.data(), rows_));
  joints.solve(x.data());
  for (int64_t j = 0; j < p_; ++j) lam[size_t(j)] = rho_[size_t(j)] * x[size_t(j)];
  return exchange(paired(lam), &lam);
}

/// Of each pair that is complementary, the larger one.
std::vector<HeldContact> ContactSolver::paired(const std::vector<double>& lam) {
  lam_ = lam;
  for (int64_t r = 0; r < rows_; ++r)
    w_[size_t(r)] = d_[size_t(r)] + dot(&A_[size_t(r * rows_)], lam_.data(), rows_);
  std::vector<HeldContact> held(static_cast<size_t>(count_));
  for (int64_t c = 0; c < count_; ++c) {
    HeldContact& own = held[size_t(c)];
    own.normal = impulse(normal(c)) > speed(normal(c));
    if (!own.normal || !has_friction(c)) continue;
    const double f = impulse(tangent(c)), s = speed(tangent(c));
    const double most = mu_[size_t(c)] * lam_[size_t(normal(c))] / rho_[size_t(tangent(c))];
    own.tangent = most - std::fabs(f) > std::fabs(s);
    if (!own.tangent) own.slides = (f != 0 ? f > 0 : s < 0) ? 1 : -1;
  }
  return held;
}

}  // namespace deq
