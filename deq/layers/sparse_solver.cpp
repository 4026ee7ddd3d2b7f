#include "deq/layers/sparse_solver.h"

#include <algorithm>
#include <cmath>

#include "deq/layers/dense_vector.h"

namespace deq {

using ops::Found;
using ops::QuadraticLimits;
using ops::QuadraticState;

namespace {

// Of the interior point, as in ops/interior_point-inl.h.
constexpr double kLeastWeight = 1e-9, kMostWeight = 1e-6, kCentred = 0.2, kLargest = 1e11;
constexpr int64_t kQuick = 16;
// Of the active rows' system: rho and delta, and what K^-1 may make of a vector's size. Smaller
// ones would cost the factor more digits than they leave to refinement (Saunders, "Cholesky-based
// methods for sparse least squares: the benefits of regularization", 1996).
constexpr double kShift = 1e-8, kMostGrowth = 1e6;
constexpr int kRefinements = 10;

}  // namespace

SparseSolver::SparseSolver(const SparsePattern& pattern)
    : pattern_(pattern), n_(pattern.shape.n), p_(pattern.shape.p), m_(pattern.shape.m) {
  const size_t all = size_t(n_ + p_ + m_);
  for (std::vector<double>* x : {&x_, &residual_, &move_, &right_, &scratch_}) x->resize(all);
  for (std::vector<double>* x : {&s_, &ds_, &rc_}) x->resize(size_t(m_));
  values_.resize(pattern.upper.size() + size_t(pattern.A.numbers() + pattern.G.numbers()) +
                 size_t(p_ + m_));
}

void SparseSolver::begin(const SparseMatrices& matrices, const ScaledVectors& vectors) {
  matrices_ = &matrices;
  vectors_ = &vectors;
  Q_ = matrices.Q;
  for (double& x : Q_) x *= vectors.curvature();
  G_ = matrices.G;
  for (const int64_t r : vectors.absent())
    std::fill(G_.begin() + pattern_.G.begin[size_t(r)],
              G_.begin() + pattern_.G.begin[size_t(r) + 1], 0.0);
  auto at = std::ranges::copy(Q_, values_.begin()).out;
  at = std::ranges::copy(matrices.A, at).out;
  std::ranges::copy(G_, at);
}

void SparseSolver::factor(std::vector<double>& L, std::vector<double>& D) {
  L.resize(size_t(pattern_.conditions.numbers()));
  D.resize(size_t(pattern_.conditions.size()));
  pattern_.conditions.factor(values_.data(), L.data(), D.data(), scratch_.data());
}

void SparseSolver::backsolve(const SparseFactor& of, std::vector<double>& x) {
  pattern_.conditions.solve(of.L.data(), of.D.data(), x.data(), scratch_.data());
}

void SparseSolver::solve(const SparseMatrices& matrices, const ScaledVectors& vectors,
                         const QuadraticLimits& limits, QuadraticState& state,
                         SparseFactor& factor) {
  begin(matrices, vectors);
  factor.held.assign(size_t(m_), 0);
  state.found = Found::Concave;
  if (matrices.concave) return;
  state.found = Found::Open;
  if (limits.warm) {
    for (int64_t r = 0; r < m_; ++r) factor.held[size_t(r)] = state.active[r] != 0;
  } else if (m_ > 0) {
    if (!interior(limits, state)) return;
    for (int64_t r = 0; r < m_; ++r)
      factor.held[size_t(r)] = s_[size_t(r)] < x_[size_t(n_ + p_ + r)];
  }
  state.found = Found::Stopped;
  polish(limits, state, factor);
}

bool SparseSolver::interior(const QuadraticLimits& limits, QuadraticState& state) {
  first_guess();
  for (int64_t k = 0;; ++k) {
    const double gap = residuals();
    const double error = std::max(largest(residual_.data(), n_) / dual_size_,
                                  largest(residual_.data() + n_, p_ + m_) / primal_size_);
    state.steps = k;
    state.factorisations = k + 1;
    if (gap <= limits.gap && error <= limits.residual) return true;
    if (!(largest(x_) <= kLargest) || k == limits.steps) return false;
    step(gap, k < kQuick);
  }
}

void SparseSolver::first_guess() {
  constexpr double weight = 1e-3;
  double* const low = values_.data() + values_.size() - size_t(p_ + m_);
  for (int64_t i = 0; i < n_; ++i) {
    values_[size_t(i)] = Q_[size_t(i)] + weight;
    x_[size_t(i)] = -vectors_->q()[size_t(i)];
  }
  std::fill_n(low, p_, -weight);
  std::fill_n(low + p_, m_, -1.0);
  std::ranges::copy(vectors_->b(), x_.begin() + n_);
  std::ranges::copy(vectors_->h(), x_.begin() + n_ + p_);
  factor(inner_.L, inner_.D);
  backsolve(inner_, x_);
  double* const lam = x_.data() + n_ + p_;
  double low_s = 0, low_l = 0;
  for (int64_t r = 0; r < m_; ++r) {
    s_[size_t(r)] = -lam[r];
    low_s = std::min(low_s, s_[size_t(r)]);
    low_l = std::min(low_l, lam[r]);
  }
  double product = 1e-300, sum_s = 1e-300, sum_l = 1e-300;
  for (int64_t r = 0; r < m_; ++r) {
    s_[size_t(r)] -= 1.5 * low_s;
    lam[r] -= 1.5 * low_l;
    product += s_[size_t(r)] * lam[r];
    sum_s += s_[size_t(r)];
    sum_l += lam[r];
  }
  const double more_s = std::max(0.5 * product / sum_l, 1e-2),
               more_l = std::max(0.5 * product / sum_s, 1e-2);
  for (int64_t r = 0; r < m_; ++r) s_[size_t(r)] += more_s, lam[r] += more_l;
  dual_size_ = std::max(1.0, largest(vectors_->q()));
  primal_size_ = std::max({1.0, largest(vectors_->b()), largest(vectors_->h())});
}

/// At the iterate; returns s'lam / m.
double SparseSolver::residuals() {
  const double *const nu = x_.data() + n_, *const lam = nu + p_;
  double *const rd = residual_.data(), *const rp = rd + n_, *const rg = rp + p_;
  std::ranges::copy(vectors_->q(), rd);
  pattern_.add_curvature(Q_.data(), x_.data(), rd);
  add_transposed_times(pattern_.A, matrices_->A.data(), nu, rd);
  add_transposed_times(pattern_.G, G_.data(), lam, rd);
  for (int64_t r = 0; r < p_; ++r) rp[r] = -vectors_->b()[size_t(r)];
  add_times(pattern_.A, matrices_->A.data(), x_.data(), rp);
  double gap = 0;
  for (int64_t r = 0; r < m_; ++r) {
    rg[r] = s_[size_t(r)] - vectors_->h()[size_t(r)];
    gap += s_[size_t(r)] * lam[r];
  }
  add_times(pattern_.G, G_.data(), x_.data(), rg);
  return gap / double(m_);
}

void SparseSolver::step(double gap, bool quick) {
  double* const lam = x_.data() + n_ + p_;
  weight_ = std::clamp(1e-2 * gap, kLeastWeight, kMostWeight);
  double* const low = values_.data() + values_.size() - size_t(p_ + m_);
  for (int64_t i = 0; i < n_; ++i) values_[size_t(i)] = Q_[size_t(i)] + weight_;
  std::fill_n(low, p_, -weight_);
  for (int64_t r = 0; r < m_; ++r) {
    low[p_ + r] = -(s_[size_t(r)] / lam[r] + weight_);
    rc_[size_t(r)] = s_[size_t(r)] * lam[r];
  }
  factor(inner_.L, inner_.D);
  direction();
  const double* const dlam = move_.data() + n_ + p_;
  const double far = length();
  double next = 0;
  for (int64_t r = 0; r < m_; ++r)
    next += (s_[size_t(r)] + far * ds_[size_t(r)]) * (lam[r] + far * dlam[r]);
  const double ratio = next / double(m_) / std::max(gap, 1e-300);
  const double target = quick ? ratio * ratio * ratio * gap : kCentred * gap;
  for (int64_t r = 0; r < m_; ++r)
    rc_[size_t(r)] = s_[size_t(r)] * lam[r] + (quick ? ds_[size_t(r)] * dlam[r] : 0) - target;
  direction();
  const double reach = length(), share = reach < 1 ? 0.995 * reach : 1;
  for (size_t i = 0; i < x_.size(); ++i) x_[i] += share * move_[i];
  for (int64_t r = 0; r < m_; ++r) {
    s_[size_t(r)] = std::max(s_[size_t(r)] + share * ds_[size_t(r)], 1e-40);
    lam[r] = std::max(lam[r], 1e-40);
  }
}

/// dz, dnu, dlam and ds for the rc that stands there.
void SparseSolver::direction() {
  const double* const lam = x_.data() + n_ + p_;
  for (size_t i = 0; i < move_.size(); ++i) move_[i] = -residual_[i];
  for (int64_t r = 0; r < m_; ++r) move_[size_t(n_ + p_ + r)] += rc_[size_t(r)] / lam[r];
  backsolve(inner_, move_);
  const double *const rg = residual_.data() + n_ + p_, *const dlam = move_.data() + n_ + p_;
  std::ranges::fill(ds_, 0.0);
  add_times(pattern_.G, G_.data(), move_.data(), ds_.data());
  for (int64_t r = 0; r < m_; ++r) ds_[size_t(r)] = weight_ * dlam[r] - rg[r] - ds_[size_t(r)];
}

/// The step, at most 1, at which the first slack or multiplier is 0.
double SparseSolver::length() const {
  const double *const lam = x_.data() + n_ + p_, *const dlam = move_.data() + n_ + p_;
  double fastest = -1;
  for (int64_t r = 0; r < m_; ++r)
    fastest = std::min({fastest, ds_[size_t(r)] / s_[size_t(r)], dlam[r] / lam[r]});
  return -1 / fastest;
}

/// Solves for the rows that are held, and exchanges those whose sign is wrong.
void SparseSolver::polish(const QuadraticLimits& limits, QuadraticState& state,
                          SparseFactor& factor) {
  const std::vector<double>&q = vectors_->q(), &b = vectors_->b(), &h = vectors_->h();
  double *const nu = x_.data() + n_, *const lam = nu + p_;
  for (int64_t round = 0; round <= limits.exchanges; ++round) {
    factor_rows(factor);
    state.factorisations += 1;
    for (int64_t i = 0; i < n_; ++i) right_[size_t(i)] = -q[size_t(i)];
    std::ranges::copy(b, right_.begin() + n_);
    for (int64_t r = 0; r < m_; ++r)
      right_[size_t(n_ + p_ + r)] = factor.held[size_t(r)] ? h[size_t(r)] : 0;
    const double left = refine(factor);
    const double most_lam = std::max({1e-6, largest(lam, m_), largest(q)}),
                 reach = std::max(1e-6, largest(x_.data(), n_));
    // Of what is large because K is nearly singular, little would be left over of anything.
    const double size = std::max({largest(q), largest(nu, p_ + m_), std::min(1e3, reach)});
    const double share = left_by_row();
    if (!(left <= 1e-11 * size) || !(share <= limits.exact) || !regular(factor)) return;
    for (int64_t r = 0; r < m_; ++r) s_[size_t(r)] = 0;
    add_times(pattern_.G, G_.data(), x_.data(), s_.data());
    bool wrong = false, weak = false;
    state.residual = share;
    for (int64_t r = 0; r < m_; ++r) {
      const bool held = factor.held[size_t(r)];
      const double sign = held ? lam[r] : h[size_t(r)] - s_[size_t(r)];
      const double most = held ? most_lam : std::max(reach, std::fabs(h[size_t(r)])),
                   bound = limits.weak * most;
      state.residual = std::max(state.residual, -sign / most);
      weak |= std::fabs(sign) <= limits.perhaps * bound;
      if (sign >= -limits.wrong * bound) continue;
      wrong = true;
      factor.held[size_t(r)] = !held;
    }
    if (wrong) continue;
    state.found = weak ? Found::Tight : Found::Exact;
    std::copy_n(x_.data(), n_, state.z);
    std::copy_n(nu, p_, state.nu);
    std::copy_n(lam, m_, state.lam);
    std::ranges::copy(factor.held, state.active);
    return;
  }
}

void SparseSolver::factor_rows(SparseFactor& factor_) {
  double* const low = values_.data() + values_.size() - size_t(p_ + m_);
  double* const rows = low - pattern_.G.numbers();
  for (int64_t i = 0; i < n_; ++i) values_[size_t(i)] = Q_[size_t(i)] + kShift;
  std::fill_n(low, p_, -kShift);
  for (int64_t r = 0; r < m_; ++r) {
    const bool held = factor_.held[size_t(r)];
    low[p_ + r] = held ? -kShift : -1;
    for (int64_t e = pattern_.G.begin[size_t(r)]; e < pattern_.G.begin[size_t(r) + 1]; ++e)
      rows[e] = held ? G_[size_t(e)] : 0;
  }
  factor(factor_.L, factor_.D);
}

bool SparseSolver::regular(const SparseFactor& factor) {
  // Numbers that are like no vector of a program's.
  uint64_t state = 0x9e3779b97f4a7c15;
  for (double& x : move_) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = 0.5 + double(state >> 11) * 0x1p-53;
  }
  double growth = 0;
  for (int round = 0; round < 3; ++round) {
    backsolve(factor, move_);
    growth = largest(move_);
    if (!(growth <= kMostGrowth)) return false;
    for (double& x : move_) x /= growth;
  }
  return true;
}

double SparseSolver::refine(const SparseFactor& factor) {
  std::ranges::fill(x_, 0.0);
  residual_ = right_;
  double left = largest(right_);
  for (int round = 0; round < kRefinements; ++round) {
    backsolve(factor, residual_);
    for (size_t i = 0; i < x_.size(); ++i) x_[i] += residual_[i];
    const double before = left;
    left = left_over(factor);
    if (!(left < 0.5 * before) || left == 0) break;
  }
  return left;
}

/// The largest of residual_, each row's as a share of its own terms.
double SparseSolver::left_by_row() {
  for (size_t i = 0; i < scratch_.size(); ++i) scratch_[i] = std::fabs(right_[i]);
  const auto larger = [&](int64_t i, int64_t j, double value) {
    double& own = scratch_[size_t(i)];
    own = std::max(own, std::fabs(value * x_[size_t(j)]));
  };
  for (size_t e = 0; e < pattern_.upper.size(); ++e) {
    const auto [i, j] = pattern_.upper[e];
    larger(i, j, Q_[e]), larger(j, i, Q_[e]);
  }
  const auto rows = [&](const RowPattern& M, const std::vector<double>& values, int64_t from) {
    for (int64_t r = 0; r < M.rows(); ++r)
      for (int64_t e = M.begin[size_t(r)]; e < M.begin[size_t(r) + 1]; ++e) {
        const int64_t j = M.column[size_t(e)];
        larger(from + r, j, values[size_t(e)]), larger(j, from + r, values[size_t(e)]);
      }
  };
  rows(pattern_.A, matrices_->A, n_);
  rows(pattern_.G, G_, n_ + p_);
  double worst = 0;
  for (size_t i = 0; i < scratch_.size(); ++i)
    worst = std::max(worst, std::fabs(residual_[i]) / std::max(scratch_[i], 1e-300));
  return worst;
}

/// right - K x in residual_.
double SparseSolver::left_over(const SparseFactor& factor) {
  double *const nu = x_.data() + n_, *const lam = nu + p_;
  double *const rd = residual_.data(), *const rp = rd + n_, *const rg = rp + p_;
  for (int64_t r = 0; r < m_; ++r)
    if (!factor.held[size_t(r)]) lam[r] = 0;
  std::ranges::fill(residual_, 0.0);
  pattern_.add_curvature(Q_.data(), x_.data(), rd);
  add_transposed_times(pattern_.A, matrices_->A.data(), nu, rd);
  add_transposed_times(pattern_.G, G_.data(), lam, rd);
  add_times(pattern_.A, matrices_->A.data(), x_.data(), rp);
  add_times(pattern_.G, G_.data(), x_.data(), rg);
  for (size_t i = 0; i < residual_.size(); ++i) residual_[i] = right_[i] - residual_[i];
  for (int64_t r = 0; r < m_; ++r)
    if (!factor.held[size_t(r)]) rg[r] = 0;
  return largest(residual_);
}

void SparseSolver::solve_reduced(const SparseMatrices& matrices, const ScaledVectors& vectors,
                                 const SparseFactor& factor, ops::ReducedRight& right) {
  begin(matrices, vectors);
  std::copy_n(right.z, n_, right_.data());
  std::copy_n(right.nu, p_, right_.data() + n_);
  for (int64_t r = 0; r < m_; ++r)
    right_[size_t(n_ + p_ + r)] = factor.held[size_t(r)] ? right.lam[r] : 0;
  const double size = largest(right_), left = refine(factor);
  std::copy_n(x_.data(), n_, right.z);
  std::copy_n(x_.data() + n_, p_, right.nu);
  std::copy_n(x_.data() + n_ + p_, m_, right.lam);
  right.residual = size > 0 ? left / size : 0;
}

}  // namespace deq
