// What is made of a world's held rows: the answer, how well it holds, the factor of its adjoint.
#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/layers/contact_solver.h"
#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

constexpr double kWeak = 1e-9;  // of the size of impulses and speeds: below it both are 0
constexpr int kRefinements = 3;
constexpr double kRounding = 4e-16;  // of what a speed is the sum of
constexpr double kMoves = 1e-7;      // what a null vector may move, in roots of energies

int8_t sign(double x, double bound) { return x > bound ? 1 : x < -bound ? -1 : 0; }

}  // namespace

void ContactSolver::finish(bool differentiable) {
  hold_weak();
  polish();
  ContactAnswer& answer = *answer_;
  for (int64_t j = 0; j < p_; ++j) answer.joint[j] = lam_[size_t(j)];
  for (int64_t c = 0; c < count_; ++c) {
    const int32_t i = used_[size_t(c)];
    const HeldContact& own = held_[size_t(c)];
    answer.normal[i] = lam_[size_t(normal(c))];
    answer.friction[i] = lam_[size_t(tangent(c))];
    answer.touch[i] = uint8_t(!own.normal       ? Touch::Open
                              : own.tangent     ? Touch::Sticks
                              : own.slides >= 0 ? Touch::Up
                                                : Touch::Down);
  }
  answer.residual = violation();
  if (!std::isfinite(answer.residual) || !all_finite(answer.velocity, n_) ||
      !all_finite(lam_.data(), rows_)) {
    answer.reason = Reason::NonFinite;
    return;
  }
  if (!(answer.residual <= options_->stop.rel_tol)) return;
  answer.reason = unique_ && smooth() ? Reason::Converged : Reason::NotUnique;
  choose_gradient();
  if (!differentiable || answer.reason != Reason::Converged) return;
  ContactFactor& factor = *factor_;
  factor.held.assign(size_t(shape_.m), HeldContact());
  for (int64_t c = 0; c < count_; ++c) factor.held[size_t(used_[size_t(c)])] = held_[size_t(c)];
  factor.rows.clear(), factor.scale.clear();
  for (const int32_t r : system_) {
    const int64_t c = r < p_ + count_ ? r - p_ : r - p_ - count_;
    factor.rows.push_back(
        r < p_ ? r : int32_t(p_ + used_[size_t(c)] + (r < p_ + count_ ? 0 : shape_.m)));
    factor.scale.push_back(rho_[size_t(r)]);
  }
  factor.known = true;
}

/// Steps of refinement, with velocities of their own: where masses differ much, impulses nearly
/// cancel, and what is left of them is not what moves a light body. Then no sign is left that
/// rounding made.
void ContactSolver::polish() {
  double* const v = answer_->velocity;
  std::copy(free_.begin(), free_.end(), v);
  const auto push = [&](int64_t r, double by) {
    for (int64_t j = 0; j < n_ && by != 0; ++j) v[j] += by * X_[size_t(r * n_ + j)];
  };
  for (int64_t r = 0; r < rows_; ++r) push(r, lam_[size_t(r)]);
  for (int turn = 0; turn < kRefinements && !factor_->system.singular(); ++turn) {
    bool exact = true;
    for (size_t i = 0; i < system_.size(); ++i) {
      const auto r = size_t(system_[i]);
      double left = c_[r], terms = std::fabs(c_[r]);
      for (int64_t j = 0; j < n_; ++j) {
        const double term = R_[r][j] * v[j];
        left -= term, terms += std::fabs(term);
      }
      x_[i] = rho_[r] * left;
      exact &= std::fabs(left) <= kRounding * terms;
    }
    if (exact) break;
    factor_->system.solve(x_.data());
    for (size_t i = 0; i < system_.size(); ++i) {
      const int64_t r = system_[i], c = r - p_;
      const double by = rho_[size_t(r)] * x_[i];
      lam_[size_t(r)] += by;
      push(r, by);
      if (c >= 0 && c < count_) push(tangent(c), held_[size_t(c)].slides * mu_[size_t(c)] * by);
    }
  }
  for (int64_t c = 0; c < count_; ++c) {
    double &own = lam_[size_t(normal(c))], &f = lam_[size_t(tangent(c))];
    own = held_[size_t(c)].normal ? std::max(0.0, own) : 0.0;
    const double most = has_friction(c) ? mu_[size_t(c)] * own : 0.0;
    f = held_[size_t(c)].tangent ? std::clamp(f, -most, most) : held_[size_t(c)].slides * most;
  }
  see_impulses();
  for (int64_t r = 0; r < rows_; ++r) w_[size_t(r)] = dot(R_[size_t(r)], v, n_);
}

/// Of the answer that is returned, by the data themselves.
double ContactSolver::violation() const {
  double worst = 0;
  const auto take = [&](double x) {  // a NaN stays
    if (!(std::fabs(x) <= worst) && !std::isnan(worst)) worst = std::fabs(x);
  };
  const auto see = [&](double x, int64_t r) { take(size(r) > 0 ? x / size(r) : x); };
  for (int64_t j = 0; j < p_; ++j) see(speed(j), j);
  for (int64_t c = 0; c < count_; ++c) {
    see(std::min(impulse(normal(c)), speed(normal(c))), normal(c));
    if (!has_friction(c)) continue;
    const double rho = rho_[size_t(tangent(c))];
    const double most = mu_[size_t(c)] * lam_[size_t(normal(c))] / rho, f = impulse(tangent(c));
    see(f - std::clamp(f - speed(tangent(c)), -most, most), tangent(c));
  }
  std::vector<double> sum(data_.impulse, data_.impulse + n_), terms(static_cast<size_t>(n_));
  for (int64_t i = 0; i < n_; ++i) {
    terms[size_t(i)] = std::fabs(sum[size_t(i)]);
    for (int64_t j = 0; j < n_; ++j) {
      const double own = data_.mass[i * n_ + j];
      sum[size_t(i)] -= own * (answer_->velocity[j] - data_.velocity[j]);
      terms[size_t(i)] +=
          std::fabs(own) * (std::fabs(answer_->velocity[j]) + std::fabs(data_.velocity[j]));
    }
  }
  for (int64_t r = 0; r < rows_; ++r) {
    for (int64_t i = 0; i < n_; ++i) {
      const double own = lam_[size_t(r)] * R_[size_t(r)][i];
      sum[size_t(i)] += own, terms[size_t(i)] += std::fabs(own);
    }
  }
  for (int64_t i = 0; i < n_; ++i) {
    const double least = std::sqrt(data_.mass[i * (n_ + 1)]) * island_size_ / 1000;
    const double unit = std::max(terms[size_t(i)], least);
    if (unit > 0) take(sum[size_t(i)] / unit);
  }
  return worst;
}

/// Whether what a singular system leaves open moves no body.
bool ContactSolver::moves_nothing(const std::vector<HeldContact>& held) const {
  std::vector<double> moved(static_cast<size_t>(n_));
  for (const std::vector<double>& z : factor_->system.right_null()) {
    std::fill(moved.begin(), moved.end(), 0.0);
    for (size_t a = 0; a < system_.size(); ++a) {
      const int64_t r = system_[a], c = r - p_;
      const double own = z[a] * rho_[size_t(r)];
      const double with =
          c >= 0 && c < count_ ? own * held[size_t(c)].slides * mu_[size_t(c)] : 0.0;
      for (int64_t j = 0; j < n_; ++j) {
        moved[size_t(j)] += own * X_[size_t(r * n_ + j)];
        if (with != 0) moved[size_t(j)] += with * X_[size_t((r + count_) * n_ + j)];
      }
    }
    for (int64_t j = 0; j < n_; ++j)
      if (std::fabs(moved[size_t(j)]) * std::sqrt(data_.mass[j * n_ + j]) > kMoves) return false;
  }
  return true;
}

/// Whether what a singular system asks of the data always holds.
bool ContactSolver::smooth() const {
  std::vector<double> asked(static_cast<size_t>(n_));
  for (const std::vector<double>& y : factor_->system.left_null()) {
    std::fill(asked.begin(), asked.end(), 0.0);
    for (size_t a = 0; a < system_.size(); ++a) {
      const auto r = size_t(system_[a]);
      for (int64_t j = 0; j < n_; ++j) asked[size_t(j)] += y[a] * rho_[r] * R_[r][j];
    }
    for (int64_t j = 0; j < n_; ++j)
      if (std::fabs(asked[size_t(j)]) > kMoves * std::sqrt(data_.mass[j * n_ + j])) return false;
  }
  return true;
}

/// The rows of the solution, with or without those that are weakly active, which are counted.
std::vector<HeldContact> ContactSolver::with_weak(bool holds) {
  answer_->weak = 0;
  std::vector<HeldContact> held = held_;
  for (int64_t c = 0; c < count_; ++c) {
    HeldContact& own = held[size_t(c)];
    const double bound = kWeak * size_of_contact(c);
    if (impulse(normal(c)) <= bound && std::fabs(speed(normal(c))) <= bound) {
      ++answer_->weak;
      own.normal = holds;
    }
    own.tangent = false, own.slides = 0;
    if (!own.normal) continue;
    const double s = w_[size_t(tangent(c))] * rho_[size_t(tangent(c))];
    own.slides = int8_t(-sign(s, bound));
    if (!has_friction(c) || own.slides != 0) continue;
    const double f = impulse(tangent(c));
    const double most = mu_[size_t(c)] * lam_[size_t(normal(c))] / rho_[size_t(tangent(c))];
    const bool at_bound = std::fabs(f) >= most - bound;
    if (at_bound) ++answer_->weak;
    own.tangent = holds || !at_bound;
    if (!own.tangent) own.slides = sign(f, bound);
  }
  return held;
}

bool ContactSolver::other_system(const std::vector<HeldContact>& held) const {
  for (int64_t c = 0; c < count_; ++c) {
    const HeldContact &x = held_[size_t(c)], &y = held[size_t(c)];
    if (x.normal != y.normal || x.tangent != y.tangent) return true;
    if (x.slides != y.slides && has_friction(c)) return true;
  }
  return false;
}

/// Where contacts are weakly active, impulses may be one of many that no single system shows: then
/// those of least norm, if their signs are right; and the velocities may be.
void ContactSolver::hold_weak() {
  const std::vector<HeldContact> found = held_, all = with_weak(true);
  if (!other_system(all)) {
    unique_ = moves_nothing(held_);
    return;
  }
  const std::vector<double> lam = lam_;
  held_ = all;
  const bool fit = solve_held(all, nullptr) && fits();
  unique_ = moves_nothing(all);
  if (fit) return;
  held_ = found;
  factor_held(found);
  x_.resize(system_.size());
  lam_ = lam;
  see_impulses();
  unique_ = unique_ && moves_nothing(found);
}

/// What the gradient holds, and the factor of that.
void ContactSolver::choose_gradient() {
  std::vector<HeldContact> held =
      with_weak(options_->degenerate.kind != Degenerate::Kind::Inactive);
  const bool other = other_system(held);
  held_ = std::move(held);
  if (other) factor_held(held_);
  answer_->dependent = int64_t(factor_->system.right_null().size());
  if (factor_->system.singular() && options_->degenerate.kind == Degenerate::Kind::Active)
    drop_dependent();
}

/// Of rows that depend on each other keeps those of the largest impulses, and then the first.
void ContactSolver::drop_dependent() {
  std::vector<int32_t> order, left = system_;
  const auto most = [&](int32_t r) {
    return r < p_ ? std::numeric_limits<double>::infinity() : std::fabs(impulse(r));
  };
  while (!left.empty()) {
    auto best = left.begin();
    for (auto own = best; own != left.end(); ++own)
      if (most(*own) > most(*best) * (1 + 1e-9)) best = own;
    order.push_back(*best);
    left.erase(best);
  }
  std::vector<int32_t> kept;
  std::vector<std::vector<double>> basis;  // of the rows kept, orthonormal, in the masses' scale
  for (const int32_t r : order) {
    std::vector<double> row(static_cast<size_t>(n_));
    for (int64_t j = 0; j < n_; ++j)
      row[size_t(j)] = rho_[size_t(r)] * R_[size_t(r)][j] / std::sqrt(data_.mass[j * n_ + j]);
    const double before = std::sqrt(dot(row.data(), row.data(), n_));
    for (int again = 0; again < 2; ++again) {
      for (const auto& unit : basis) {
        const double part = dot(unit.data(), row.data(), n_);
        for (int64_t j = 0; j < n_; ++j) row[size_t(j)] -= part * unit[size_t(j)];
      }
    }
    const double alone = std::sqrt(dot(row.data(), row.data(), n_));
    if (!(alone > kMoves * before)) continue;
    for (double& x : row) x /= alone;
    basis.push_back(std::move(row));
    kept.push_back(r);
  }
  std::ranges::sort(kept);
  const auto old = int64_t(system_.size()), k = int64_t(kept.size());
  std::vector<double> S(size_t(k * k));
  std::vector<int64_t> at;
  for (const int32_t r : kept) at.push_back(std::ranges::find(system_, r) - system_.begin());
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < k; ++j)
      S[size_t(i * k + j)] = S_[size_t(at[size_t(i)] * old + at[size_t(j)])];
  factor_->system.factor(S, k);
  system_ = kept;
}

}  // namespace deq
