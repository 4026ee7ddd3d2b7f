#include "deq/layers/exact_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/layers/plain_program.h"

namespace deq {

using ops::Found;
using ops::QuadraticLimits;

namespace {

constexpr int64_t kExchanges = 20;
constexpr double kFree = 1e-12;  // what multipliers may be moved by; less is rounding
// Of the program's largest number in every row's size: a share of 1e-9 is then 1e-12 of it, which
// rounding in a program of some condition comes to.
constexpr double kOfLargest = 1e-3;

}  // namespace

ExactSolver::ExactSolver(const ScaledProgram& program, QuadraticLimits limits)
    : program_(program),
      data_(program.data()),
      limits_(limits),
      n_(program.shape().n),
      p_(program.shape().p),
      m_(program.shape().m),
      z_(size_t(n_)),
      nu_(size_t(p_)),
      lam_(size_t(m_)),
      s_(size_t(m_)),
      held_(size_t(m_)) {
  limits_.polish = limits_.warm = false;
  limits_.concave = -1;
  limits_.gap = 1e-13;
  limits_.residual = 1e-10;
  limits_.steps = std::max<int64_t>(limits.steps, 1);
}

bool ExactSolver::approach() {
  ops::QuadraticState state{z_.data(), nu_.data(), lam_.data(), s_.data(), held_.data()};
  ops::ReducedFactors none;
  state.found = Found::Stopped;  // without rows of G from anywhere
  if (m_ > 0) ops::solve_quadratic(program_.shape(), &data_, 1, limits_, &state, none);
  steps_ += state.steps;
  factorisations_ += state.factorisations;
  centre_ = lam_, centre_nu_ = nu_, centre_s_ = s_, centre_z_ = z_;
  return state.found == Found::Stopped;
}

bool ExactSolver::settle() {
  for (int64_t i = 0; i < n_; ++i)
    if (!std::isfinite(z_[size_t(i)])) return false;
  for (int64_t round = 0; round < kExchanges; ++round) {
    factor_ = factored(held_);
    if (factor_->concave()) return false;
    if (!solve_rows()) return false;
    choose_multipliers();
    measure();
    if (signs_are_right()) return residual() <= 1e-9;
  }
  return false;
}

std::unique_ptr<ExactFactor> ExactSolver::factored(const std::vector<uint8_t>& held) {
  std::vector<int64_t> rows;
  std::vector<double> weights;
  for (int64_t r = 0; r < p_ + m_; ++r) {
    if (r >= p_ && !held[size_t(r - p_)]) continue;
    rows.push_back(r);
    weights.push_back(program_.multiplier(r));
  }
  factorisations_ += 1;
  return std::make_unique<ExactFactor>(program_.shape(), data_, std::move(rows),
                                       std::move(weights));
}

/// z moves as little as it can from the interior point's, so that what the rows leave open stays.
bool ExactSolver::solve_rows() {
  const std::vector<int64_t>& rows = factor_->rows();
  std::vector<double> x(static_cast<size_t>(n_)), y(rows.size());
  for (int64_t i = 0; i < n_; ++i)
    x[size_t(i)] = -data_.q[i] - data_.curvature * dot(data_.Q + i * n_, centre_z_.data(), n_);
  for (size_t j = 0; j < rows.size(); ++j)
    y[j] = right(rows[j]) - dot(row(rows[j]), centre_z_.data(), n_);
  const double size = std::max({1.0, largest(centre_z_), largest(y), largest(x)});
  factor_->solve(x.data(), y.data(), Dependent::Some);
  for (int64_t i = 0; i < n_; ++i) z_[size_t(i)] = centre_z_[size_t(i)] + x[size_t(i)];
  y_ = std::move(y);
  double off = 0;
  for (size_t j = 0; j < rows.size(); ++j)
    off = std::max(off, std::fabs(right(rows[j]) - dot(row(rows[j]), z_.data(), n_)));
  return off <= 1e-9 * size;
}

/// Where rows depend on each other: multipliers of least norm among those that are not negative.
void ExactSolver::choose_multipliers() {
  if (factor_->dependent()) {
    factor_->to_least_norm(y_.data());
    if (any_negative()) to_positive();
  }
  std::ranges::fill(nu_, 0.0);
  std::ranges::fill(lam_, 0.0);
  for (size_t j = 0; j < y_.size(); ++j) {
    const int64_t r = factor_->rows()[j];
    (r < p_ ? nu_[size_t(r)] : lam_[size_t(r - p_)]) = y_[j];
  }
}

bool ExactSolver::any_negative() const {
  const std::vector<int64_t>& rows = factor_->rows();
  const double bound = limits_.weak * std::max(most_lam(), largest(y_));
  for (size_t j = 0; j < rows.size(); ++j) {
    if (rows[j] >= p_ && y_[j] < -bound) return true;
  }
  return false;
}

/// By a program of its own, in what the rows leave free.
void ExactSolver::to_positive() {
  const std::vector<int64_t>& rows = factor_->rows();
  const auto& freedom = factor_->freedom();
  const int64_t f = int64_t(freedom.size());
  PlainProgram least(f);
  std::vector<double> own(static_cast<size_t>(f));
  for (size_t j = 0; j < rows.size(); ++j) {
    const double weight = program_.multiplier(rows[j]) / program_.multiplier(rows[0]);
    for (int64_t a = 0; a < f; ++a) {
      const double free = freedom[size_t(a)][j];
      own[size_t(a)] = std::fabs(free) > kFree ? -free : 0;
    }
    for (int64_t a = 0; a < f; ++a) {
      least.q[size_t(a)] -= weight * weight * y_[j] * own[size_t(a)];
      for (int64_t c = 0; c < f; ++c)
        least.Q[size_t(a * f + c)] += weight * weight * own[size_t(a)] * own[size_t(c)];
    }
    if (rows[j] >= p_ && largest(own) > 0) least.below(own.data(), y_[j]);
  }
  const std::vector<double> t = least.solve(limits_);
  if (t.empty()) take_from_centre();
  for (size_t a = 0; a < t.size(); ++a)
    for (size_t j = 0; j < rows.size(); ++j) y_[j] += t[a] * freedom[a][j];
}

/// Those nearest to the interior point's, which are positive.
void ExactSolver::take_from_centre() {
  std::vector<double> centre;
  for (const int64_t r : factor_->rows())
    centre.push_back(r < p_ ? centre_nu_[size_t(r)] : centre_[size_t(r - p_)]);
  std::vector<double> apart = centre;
  for (size_t j = 0; j < apart.size(); ++j) apart[j] -= y_[j];
  factor_->to_least_norm(apart.data());
  for (size_t j = 0; j < apart.size(); ++j) y_[j] = centre[j] - apart[j];
}

void ExactSolver::measure() {
  for (int64_t r = 0; r < m_; ++r)
    s_[size_t(r)] = data_.h[r] - dot(data_.G + r * n_, z_.data(), n_);
  measure_sizes();
}

void ExactSolver::measure_sizes() {
  size_z_.assign(data_.q, data_.q + n_);
  for (int64_t i = 0; i < n_; ++i) {
    double& own = size_z_[size_t(i)];
    own = std::fabs(own);
    for (int64_t j = 0; j < n_; ++j)
      own = std::max(own, data_.curvature * std::fabs(data_.Q[i * n_ + j] * z_[size_t(j)]));
  }
  size_row_.resize(size_t(p_ + m_));
  const double reach = std::max(1e-6, largest(z_));
  for (int64_t r = 0; r < p_ + m_; ++r) {
    const double y = r < p_ ? nu_[size_t(r)] : lam_[size_t(r - p_)];
    double& own = size_row_[size_t(r)];
    own = std::max(std::fabs(right(r)), kOfLargest * reach);
    for (int64_t i = 0; i < n_; ++i) {
      own = std::max(own, std::fabs(row(r)[i] * z_[size_t(i)]));
      size_z_[size_t(i)] = std::max(size_z_[size_t(i)], std::fabs(row(r)[i] * y));
    }
  }
  size_lam_.assign(size_t(m_), kOfLargest * most_lam());
  for (int64_t r = 0; r < m_; ++r)
    for (int64_t i = 0; i < n_; ++i)
      size_lam_[size_t(r)] =
          std::max(size_lam_[size_t(r)], std::fabs(row(p_ + r)[i]) * size_z_[size_t(i)]);
  for (double& own : size_z_) own = std::max(own, kOfLargest * most_lam());
}

bool ExactSolver::signs_are_right() {
  bool right = true;
  std::vector<uint8_t> next = held_;
  for (int64_t r = 0; r < m_; ++r) {
    const double own = held_[size_t(r)] ? lam_[size_t(r)] : s_[size_t(r)];
    if (own >= -limits_.wrong * (held_[size_t(r)] ? weak_lam(r) : weak_s(r))) continue;
    right = false;
    next[size_t(r)] = !held_[size_t(r)];
  }
  held_ = next;
  return right;
}

/// Of Qz + q + A'nu + G'lam, entry i.
double ExactSolver::left_over(int64_t i) const {
  double sum = data_.q[i] + data_.curvature * dot(data_.Q + i * n_, z_.data(), n_);
  for (int64_t r = 0; r < p_; ++r) sum += data_.A[r * n_ + i] * nu_[size_t(r)];
  for (int64_t r = 0; r < m_; ++r) sum += data_.G[r * n_ + i] * lam_[size_t(r)];
  return std::fabs(sum);
}

double ExactSolver::residual() const {
  double worst = 0;
  for (int64_t i = 0; i < n_; ++i) worst = std::max(worst, left_over(i) / size_z_[size_t(i)]);
  for (int64_t r = 0; r < p_; ++r)
    worst =
        std::max(worst, std::fabs(data_.b[r] - dot(row(r), z_.data(), n_)) / size_row_[size_t(r)]);
  for (int64_t r = 0; r < m_; ++r) {
    const double slack = s_[size_t(r)] / size_row_[size_t(p_ + r)],
                 pressed = lam_[size_t(r)] / size_lam_[size_t(r)];
    worst = std::max({worst, -slack, -pressed, std::min(std::fabs(slack), std::fabs(pressed))});
  }
  return worst;
}

bool ExactSolver::unique() {
  if (factor_->unique()) return true;
  // Rows that some multiplier presses: the interior point's are positive wherever any is.
  std::vector<uint8_t> pressed(size_t(m_), 0), tight(size_t(m_), 0);
  bool more = false;
  for (int64_t r = 0; r < m_; ++r) {
    const bool touches = std::fabs(s_[size_t(r)]) <= weak_s(r);
    tight[size_t(r)] = touches;
    pressed[size_t(r)] =
        touches && (lam_[size_t(r)] > weak_lam(r) || centre_[size_t(r)] > 1e-5 * most_lam());
    more |= touches && !pressed[size_t(r)];
  }
  if (factored(pressed)->unique()) return held_ = pressed, true;
  if (!more || !factored(tight)->unique()) return false;
  // Whether a direction leaves the other tight rows without costing anything.
  PlainProgram leaving(n_);
  std::vector<double> sum(static_cast<size_t>(n_));
  for (int64_t i = 0; i < n_; ++i) {
    leaving.curve(i, 1);
    if (data_.curvature > 0) leaving.equal(data_.Q + i * n_, 0);
  }
  for (int64_t r = 0; r < p_; ++r) leaving.equal(row(r), 0);
  for (int64_t r = 0; r < m_; ++r) {
    if (!tight[size_t(r)]) continue;
    if (pressed[size_t(r)]) {
      leaving.equal(row(p_ + r), 0);
      continue;
    }
    leaving.below(row(p_ + r), 0);
    for (int64_t i = 0; i < n_; ++i) sum[size_t(i)] += row(p_ + r)[i];
  }
  leaving.equal(sum.data(), -1);
  if (!leaving.solve(limits_).empty()) return false;
  held_ = tight;
  return true;
}

bool ExactSolver::to_least_norm() {
  PlainProgram least(n_);
  for (int64_t i = 0; i < n_; ++i) {
    const double own = program_.matrices().D[size_t(i)];
    least.curve(i, own * own);
    if (!program_.matrices().flat)
      least.equal(data_.Q + i * n_, dot(data_.Q + i * n_, z_.data(), n_));
  }
  for (int64_t r = 0; r < p_; ++r) least.equal(row(r), data_.b[r]);
  for (int64_t r = 0; r < m_; ++r) {
    if (lam_[size_t(r)] > weak_lam(r)) {
      least.equal(row(p_ + r), data_.h[r]);
    } else {
      least.below(row(p_ + r), data_.h[r]);
    }
  }
  const std::vector<double> found = least.solve(limits_);
  if (found.empty()) return false;
  const std::vector<double> before = z_;
  z_ = found;
  measure();
  if (residual() <= 1e-9) return true;
  z_ = before;
  measure();
  return false;
}

void ExactSolver::choose_gradient(const Degenerate& degenerate) {
  std::vector<uint8_t> strong(size_t(m_), 0), tight(size_t(m_), 0);
  weak_ = 0;
  for (int64_t r = 0; r < m_; ++r) {
    strong[size_t(r)] = lam_[size_t(r)] > weak_lam(r);
    tight[size_t(r)] = strong[size_t(r)] || std::fabs(s_[size_t(r)]) <= weak_s(r);
    weak_ += tight[size_t(r)] && !strong[size_t(r)];
  }
  active_ = tight;
  factor_ = factored(degenerate.kind == Degenerate::Kind::Inactive ? strong : tight);
  if (!factor_->unique()) factor_ = factored(tight);
}

void ExactSolver::write(ExactAnswer& answer) const {
  answer.z = z_;
  answer.nu = nu_;
  answer.lam = lam_;
  answer.active = active_.empty() ? std::vector<uint8_t>(size_t(m_), 0) : active_;
  answer.weak = weak_;
  answer.residual = size_z_.empty() ? std::numeric_limits<double>::infinity() : residual();
  answer.steps = steps_;
  answer.factorisations = factorisations_;
}

}  // namespace deq
