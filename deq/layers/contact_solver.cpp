#include "deq/layers/contact_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/layers/contact_certificate.h"
#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

constexpr double kSign = 1e-11;  // of the size of impulses and speeds: what has no sign
constexpr double kMeets = 1e-9;  // the same: what a singular system may leave

constexpr int kExchanges = 12;

int8_t sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

}  // namespace

void ContactSolver::solve(const ContactShape& shape, const ContactData& data,
                          const ResolveOptions& options, const uint8_t* warm, ContactAnswer& answer,
                          ContactFactor& factor, bool differentiable) {
  shape_ = shape, data_ = data, options_ = &options, answer_ = &answer, factor_ = &factor;
  n_ = shape.n, p_ = shape.p;
  factor.known = false;
  answer.residual = std::numeric_limits<double>::infinity();
  if (!finite()) {
    answer.reason = Reason::NonFinite;
    return;
  }
  if (!factor.mass.factor(data.mass, n_)) {
    answer.reason = Reason::NotConvex;
    return;
  }
  if (!prepare()) {
    answer.reason = Reason::NonFinite;
    return;
  }
  answer.reason = Reason::MaxSteps;
  bool found = warm && from_touch(warm);
  if (!found) {
    const std::vector<double> near = swept();
    found = exchange(suggested(near), &near) || by_pivots();
    if (!found && no_velocity(shape, data, answer.certificate)) {
      answer.reason = Reason::Infeasible;
      return;
    }
    found = found || by_trying();
  }
  if (found) finish(differentiable);
}

bool ContactSolver::finite() const {
  const auto [n, m, p] = shape_;
  return all_finite(data_.mass, n * n) && all_finite(data_.velocity, n) &&
         all_finite(data_.impulse, n) && all_finite(data_.normal, m * n) &&
         all_finite(data_.tangent, m * n) && all_finite(data_.restitution, m) &&
         all_finite(data_.friction, m) && all_finite(data_.joint, p * n) &&
         all_finite(data_.bias, m) && all_finite(data_.joint_bias, p);
}

/// Rows, A, d and c; false where a number overflows.
bool ContactSolver::prepare() {
  const int64_t n = n_;
  used_.clear(), mu_.clear(), R_.clear();
  for (int64_t j = 0; j < p_; ++j) R_.push_back(data_.joint + j * n);
  for (int64_t i = 0; i < shape_.m; ++i) {
    const double* const row = data_.normal + i * n;
    if (std::all_of(row, row + n, [](double x) { return x == 0; })) continue;
    used_.push_back(int32_t(i));
    mu_.push_back(data_.friction[i]);
    R_.push_back(row);
  }
  count_ = int64_t(used_.size());
  for (const int32_t i : used_) R_.push_back(data_.tangent + i * n);
  rows_ = p_ + 2 * count_;
  free_.assign(data_.impulse, data_.impulse + n);
  factor_->mass.solve(free_.data());
  for (int64_t j = 0; j < n; ++j) free_[size_t(j)] += data_.velocity[j];
  X_.resize(size_t(rows_ * n)), A_.resize(size_t(rows_ * rows_));
  d_.resize(size_t(rows_)), c_.assign(size_t(rows_), 0);
  for (int64_t r = 0; r < rows_; ++r) {
    double* const x = &X_[size_t(r * n)];
    std::copy_n(R_[size_t(r)], n, x);
    factor_->mass.solve(x);
    d_[size_t(r)] = dot(R_[size_t(r)], free_.data(), n);
    for (int64_t s = 0; s < rows_; ++s) A_[size_t(s * rows_ + r)] = dot(R_[size_t(s)], x, n);
  }
  for (int64_t j = 0; j < p_; ++j) c_[size_t(j)] = -data_.joint_bias[j];
  for (int64_t c = 0; c < count_; ++c) {
    const int32_t i = used_[size_t(c)];
    c_[size_t(normal(c))] =
        -data_.restitution[i] * dot(R_[size_t(normal(c))], data_.velocity, n) - data_.bias[i];
  }
  scale();
  return all_finite(free_.data(), n) && all_finite(A_.data(), rows_ * rows_) &&
         all_finite(d_.data(), rows_) && all_finite(c_.data(), rows_);
}

void ContactSolver::scale() {
  rho_.resize(size_t(rows_));
  base_size_ = 0;
  for (int64_t r = 0; r < rows_; ++r) {
    const double own = a(r, r);
    rho_[size_t(r)] = own > 0 ? 1 / std::sqrt(own) : 1;
    base_size_ = std::max(
        base_size_, rho_[size_t(r)] * std::max(std::fabs(d_[size_t(r)]), std::fabs(c_[size_t(r)])));
  }
  base_terms_.resize(size_t(rows_)), own_size_.resize(size_t(rows_));
  for (int64_t r = 0; r < rows_; ++r)
    base_terms_[size_t(r)] = std::fabs(d_[size_t(r)]) + std::fabs(c_[size_t(r)]);
  lam_.assign(size_t(rows_), 0), w_.resize(size_t(rows_));
  see_impulses();
}

double ContactSolver::size() const {
  double most = base_size_;
  for (int64_t r = 0; r < rows_; ++r) most = std::max(most, std::fabs(impulse(r)));
  return most;
}

void ContactSolver::factor_held(const std::vector<HeldContact>& held) {
  system_.clear();
  for (int64_t j = 0; j < p_; ++j) system_.push_back(int32_t(j));
  for (int64_t c = 0; c < count_; ++c) {
    if (held[size_t(c)].normal) system_.push_back(int32_t(normal(c)));
    if (held[size_t(c)].tangent) system_.push_back(int32_t(tangent(c)));
  }
  const auto k = int64_t(system_.size());
  S_.resize(size_t(k * k));
  for (int64_t j = 0; j < k; ++j) {
    const int64_t s = system_[size_t(j)], c = s - p_;
    const double slope = c >= 0 && c < count_ ? held[size_t(c)].slides * mu_[size_t(c)] : 0.0;
    for (int64_t i = 0; i < k; ++i) {
      const int64_t r = system_[size_t(i)];
      const double along = slope != 0 ? slope * a(r, tangent(c)) : 0.0;
      S_[size_t(i * k + j)] = rho_[size_t(r)] * rho_[size_t(s)] * (a(r, s) + along);
    }
  }
  factor_->system.factor(S_, k);
  ++answer_->factorisations;
}

/// Speeds and sizes at these impulses.
void ContactSolver::see_impulses() {
  pushing_.clear();
  for (int64_t s = 0; s < rows_; ++s)
    if (lam_[size_t(s)] != 0) pushing_.push_back(int32_t(s));
  island_size_ = size();
  for (int64_t r = 0; r < rows_; ++r) {
    const double* const row = &A_[size_t(r * rows_)];
    double sum = 0, terms = 0;
    for (const int32_t s : pushing_) {
      const double term = row[s] * lam_[size_t(s)];
      sum += term, terms += std::fabs(term);
    }
    w_[size_t(r)] = d_[size_t(r)] + sum;
    own_size_[size_t(r)] = rho_[size_t(r)] * (base_terms_[size_t(r)] + terms);
  }
}

/// Friction of contacts that slide, and all speeds.
void ContactSolver::spread(const std::vector<HeldContact>& held) {
  for (int64_t c = 0; c < count_; ++c) {
    if (!held[size_t(c)].tangent)
      lam_[size_t(tangent(c))] = held[size_t(c)].slides * mu_[size_t(c)] * lam_[size_t(normal(c))];
  }
  see_impulses();
}

/// The solution that is nearest to `near`, or to 0, where it is one of many.
bool ContactSolver::solve_held(const std::vector<HeldContact>& held,
                               const std::vector<double>* near) {
  if (!near) factor_held(held);
  const auto k = int64_t(system_.size());
  x_.resize(size_t(k));
  std::fill(lam_.begin(), lam_.end(), 0.0);
  if (near) {
    for (const int32_t r : system_) lam_[size_t(r)] = (*near)[size_t(r)];
    spread(held);
  }
  const std::vector<double>& from = near ? w_ : d_;
  for (int64_t i = 0; i < k; ++i) {
    const auto r = size_t(system_[size_t(i)]);
    x_[size_t(i)] = rho_[r] * (c_[r] - from[r]);
  }
  factor_->system.solve(x_.data());
  for (int64_t i = 0; i < k; ++i) {
    const auto r = size_t(system_[size_t(i)]);
    lam_[r] += rho_[r] * x_[size_t(i)];
  }
  spread(held);
  if (!factor_->system.singular()) return true;
  return std::ranges::all_of(system_,
                             [&](int32_t r) { return std::fabs(speed(r)) <= kMeets * size(r); });
}

bool ContactSolver::fits() {
  bool fit = true;
  next_ = held_;
  worst_sign_ = 0;
  // Whether this, which should not be positive, is; of row r.
  const auto wrong = [&](double x, int64_t r) {
    const double unit = size(r);
    if (x > 0) worst_sign_ = std::max(worst_sign_, x / unit);
    return x > kSign * unit;
  };
  for (int64_t c = 0; c < count_; ++c) {
    HeldContact& own = next_[size_t(c)];
    const bool before = own.normal;
    own.normal =
        before ? !wrong(-impulse(normal(c)), normal(c)) : wrong(-speed(normal(c)), normal(c));
    fit &= own.normal == before;
    if (!has_friction(c)) continue;
    if (!own.normal) {
      own.tangent = false, own.slides = 0;
    } else if (!before) {
      own.tangent = true, own.slides = 0;
    } else if (own.tangent) {
      const double f = lam_[size_t(tangent(c))];
      const double most = mu_[size_t(c)] * lam_[size_t(normal(c))] / rho_[size_t(tangent(c))];
      if (!wrong(std::fabs(impulse(tangent(c))) - most, tangent(c))) continue;
      own.tangent = false, own.slides = sign(f);
      fit = false;
    } else if (wrong(own.slides * speed(tangent(c)), tangent(c))) {
      own.tangent = true, own.slides = 0;
      fit = false;
    }
  }
  return fit;
}

/// From `held`, until all signs are right. `near`: impulses that nearly solve it.
bool ContactSolver::exchange(std::vector<HeldContact> held, const std::vector<double>* near) {
  held_ = std::move(held);
  for (int turn = 0; turn < kExchanges && answer_->steps < options_->stop.max_steps; ++turn) {
    ++answer_->steps;
    const bool solved = solve_held(held_, nullptr);
    if (fits() && solved) return true;
    if (factor_->system.singular() && near) {
      const std::vector<HeldContact> next = next_;
      if (solve_held(held_, near) && fits()) return true;
      if (solved) next_ = next;
    }
    if (next_ == held_) return false;
    held_ = next_;
  }
  return false;
}

}  // namespace deq
