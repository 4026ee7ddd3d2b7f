#include "deq/layers/contact_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/layers/contact_certificate.h"
#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

constexpr double kSign = 1e-11;  // of what a row is made of: what has no sign

constexpr double kHolds = 1e-9;  // below it a held row of a singular system has its speed

constexpr int kExchanges = 12;

bool all_finite(const double* x, int64_t count) {
  return std::all_of(x, x + count, [](double value) { return std::isfinite(value); });
}

/// |x|'y, in four sums.
double size_of(const double* x, const double* y, int64_t n) {
  double sum[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int64_t k = 0; k < 4; ++k) sum[k] += std::fabs(x[i + k]) * y[i + k];
  for (; i < n; ++i) sum[0] += std::fabs(x[i]) * y[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

int8_t sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

}  // namespace

bool ContactSolver::solve(const ContactShape& shape, const ContactData& data,
                          const ResolveOptions& options, const uint8_t* warm,
                          ContactIslands* islands, ContactAnswer& answer, IslandFactor& factor,
                          bool differentiable) {
  shape_ = shape, data_ = data, options_ = &options, answer_ = &answer, factor_ = &factor;
  n_ = shape.n, p_ = shape.p, islands_ = islands;
  factor.known = false;
  answer.residual = std::numeric_limits<double>::infinity();
  answer.reason = Reason::NotConvex;
  if (!factor.mass.factor(data.mass, n_)) return !divisible();
  answer.reason = Reason::NonFinite;
  if (!prepare()) return !divisible();
  answer.reason = Reason::MaxSteps;
  bool found = warm && from_touch(warm);
  if (!found) {
    const std::vector<double> near = swept();
    found = exchange(suggested(near), &near);
    if (!found && divisible()) return false;
    found = found || by_pivots();
    if (!found && no_velocity(shape, data, answer.certificate)) {
      answer.reason = Reason::Infeasible;
      return true;
    }
    found = found || by_trying();
  }
  return !found || finish(differentiable);
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
         all_finite(own_.data(), rows_) && all_finite(c_.data(), rows_);
}

void ContactSolver::scale() {
  rho_.resize(size_t(rows_)), own_.resize(size_t(rows_)), w_.resize(size_t(n_));
  for (int64_t j = 0; j < n_; ++j) {
    const double v = data_.velocity[j];
    w_[size_t(j)] = std::fabs(v) + std::fabs(free_[size_t(j)] - v);
  }
  for (int64_t r = 0; r < rows_; ++r) {
    const double own = a(r, r);
    rho_[size_t(r)] = own > 0 ? 1 / std::sqrt(own) : 1;
    double sum = size_of(R_[size_t(r)], w_.data(), n_);
    if (r < p_) {
      sum += std::fabs(data_.joint_bias[r]);
    } else if (r < p_ + count_) {
      const int32_t i = used_[size_t(r - p_)];
      sum += data_.restitution[i] * sum + std::fabs(data_.bias[i]);
    }
    own_[size_t(r)] = rho_[size_t(r)] * sum;
  }
  lam_.assign(size_t(rows_), 0), w_ = d_;
}

/// size_ and largest_, for lam_.
void ContactSolver::measure() {
  size_.assign(size_t(rows_), 0.0);
  for (int64_t s = 0; s < rows_; ++s) {
    const double own = std::fabs(lam_[size_t(s)]);
    if (own == 0) continue;
    const double* const row = &A_[size_t(s * rows_)];  // as large as the column
    for (int64_t r = 0; r < rows_; ++r) size_[size_t(r)] += own * std::fabs(row[r]);
  }
  largest_ = 0;
  for (int64_t r = 0; r < rows_; ++r) {
    double& own = size_[size_t(r)];
    own = own_[size_t(r)] + rho_[size_t(r)] * own;
    largest_ = std::max(largest_, own);
  }
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

/// Friction of contacts that slide, and all speeds.
void ContactSolver::spread(const std::vector<HeldContact>& held) {
  for (int64_t c = 0; c < count_; ++c) {
    if (!held[size_t(c)].tangent)
      lam_[size_t(tangent(c))] = held[size_t(c)].slides * mu_[size_t(c)] * lam_[size_t(normal(c))];
  }
  for (int64_t r = 0; r < rows_; ++r)
    w_[size_t(r)] = d_[size_t(r)] + dot(&A_[size_t(r * rows_)], lam_.data(), rows_);
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
  measure();
  return std::ranges::all_of(system_,
                             [&](int32_t r) { return std::fabs(speed(r)) <= bound(r, kHolds); });
}

bool ContactSolver::fits() {
  measure();
  bool fit = true;
  next_ = held_;
  for (int64_t c = 0; c < count_; ++c) {
    HeldContact& own = next_[size_t(c)];
    const bool before = own.normal;
    const double least = -bound(normal(c), kSign);
    own.normal = before ? impulse(normal(c)) >= least : speed(normal(c)) < least;
    fit &= own.normal == before;
    if (!has_friction(c)) continue;
    const double slack = bound(tangent(c), kSign);
    if (!own.normal) {
      own.tangent = false, own.slides = 0;
    } else if (!before) {
      own.tangent = true, own.slides = 0;
    } else if (own.tangent) {
      const double most = mu_[size_t(c)] * lam_[size_t(normal(c))], f = lam_[size_t(tangent(c))];
      if (std::fabs(f) <= most + slack * rho_[size_t(tangent(c))]) continue;
      own.tangent = false, own.slides = sign(f);
      fit = false;
    } else if (own.slides * speed(tangent(c)) > slack) {
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
