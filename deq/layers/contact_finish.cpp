// What is made of a world's held rows: the answer, how well it holds, the factor of its adjoint.
#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/layers/contact_solver.h"
#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

constexpr double kWeak = 1e-9;    // of what a row is made of: below it impulses and speeds are 0
constexpr double kExact = 1e-13;  // of a row's velocities: what is left of one that is held
constexpr double kMoves = 1e-7;   // what a null vector may move, in roots of energies

int8_t sign(double x, double bound) { return x > bound ? 1 : x < -bound ? -1 : 0; }

}  // namespace

bool ContactSolver::finish(bool differentiable) {
  if (!hold_weak()) return false;
  polish();
  ContactAnswer& answer = *answer_;
  write_velocity();
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
  answer.residual = violation(islands_ ? 0 : kLeastShare);
  if (islands_ && !(answer.residual <= options_->stop.rel_tol)) {
    if (divisible()) return false;
    answer.residual = violation(kLeastShare);
  }
  if (!std::isfinite(answer.residual)) answer.reason = Reason::NonFinite;
  if (!(answer.residual <= options_->stop.rel_tol)) return true;
  answer.reason = unique_ && smooth() ? Reason::Converged : Reason::NotUnique;
  choose_gradient();
  if (!differentiable || answer.reason != Reason::Converged) return true;
  IslandFactor& factor = *factor_;
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
  return true;
}

/// One step of refinement; then no sign is left that rounding made.
void ContactSolver::polish() {
  if (!factor_->system.singular()) {
    for (size_t i = 0; i < system_.size(); ++i) x_[i] = -speed(system_[i]);
    factor_->system.solve(x_.data());
    for (size_t i = 0; i < system_.size(); ++i) {
      const auto r = size_t(system_[i]);
      lam_[r] += rho_[r] * x_[i];
    }
  }
  for (int64_t c = 0; c < count_; ++c) {
    double &own = lam_[size_t(normal(c))], &f = lam_[size_t(tangent(c))];
    own = held_[size_t(c)].normal ? std::max(0.0, own) : 0.0;
    const double most = has_friction(c) ? mu_[size_t(c)] * own : 0.0;
    f = held_[size_t(c)].tangent ? std::clamp(f, -most, most) : held_[size_t(c)].slides * most;
  }
}

void ContactSolver::write_velocity() {
  double* const v = answer_->velocity;
  std::copy(free_.begin(), free_.end(), v);
  for (int64_t r = 0; r < rows_; ++r) {
    if (lam_[size_t(r)] == 0) continue;
    for (int64_t j = 0; j < n_; ++j) v[j] += lam_[size_t(r)] * X_[size_t(r * n_ + j)];
  }
  const auto measured = [&] {
    bool exact = true;
    for (int64_t r = 0; r < rows_; ++r) w_[size_t(r)] = dot(R_[size_t(r)], v, n_);
    for (const int32_t r : system_) exact &= std::fabs(speed(r)) <= kExact * own_[size_t(r)];
    return exact;
  };
  // Of a light body between heavy ones v is a difference of impulses that they cannot hold.
  if (measured() || factor_->system.singular() || !loses_masses()) return;
  for (int turn = 0; turn < 3; ++turn) {
    for (size_t i = 0; i < system_.size(); ++i) x_[i] = -speed(system_[i]);
    factor_->system.solve(x_.data());
    for (size_t i = 0; i < system_.size(); ++i) {
      const int64_t r = system_[i], c = r - p_;
      const double own = rho_[size_t(r)] * x_[i];
      const double with = c >= 0 && c < count_ ? held_[size_t(c)].slides * mu_[size_t(c)] : 0.0;
      for (int64_t j = 0; j < n_; ++j) v[j] += own * X_[size_t(r * n_ + j)];
      lam_[size_t(r)] += own;
      if (with != 0) lam_[size_t(r + count_)] += own * with;
      for (int64_t j = 0; j < n_ && with != 0; ++j)
        v[j] += own * with * X_[size_t((r + count_) * n_ + j)];
    }
    if (measured()) return;
  }
}

/// Of the answer that is returned, by the data themselves.
double ContactSolver::violation(double least_share) const {
  double worst = 0;
  const auto take = [&](double x) {  // a NaN stays
    if (!(std::fabs(x) <= worst) && !std::isnan(worst)) worst = std::fabs(x);
  };
  const auto share = [](double x, double unit) {
    return std::isinf(unit) ? unit : unit > 0 ? x / unit : x;
  };
  const auto of_impulse = [&](int64_t r, double x) {
    return share(x, std::max(size_[size_t(r)], least_share * largest_));
  };
  // Of the row's velocities, where impulses are larger by far.
  const auto of_speed = [&](int64_t r) {
    double own = std::max(size_[size_t(r)], least_share * largest_);
    if (own > 100 * own_[size_t(r)] && loses_masses()) {
      double sum = 0;
      for (int64_t j = 0; j < n_; ++j) sum += std::fabs(R_[size_t(r)][j] * answer_->velocity[j]);
      own = std::min(own, own_[size_t(r)] + rho_[size_t(r)] * sum);
      for (int64_t s = 0; s < rows_; ++s) own = std::max(own, least_share * own_[size_t(s)]);
    }
    return share(speed(r), own);
  };
  for (int64_t j = 0; j < p_; ++j) take(of_speed(j));
  for (int64_t c = 0; c < count_; ++c) {
    take(std::min(of_impulse(normal(c), impulse(normal(c))), of_speed(normal(c))));
    if (!has_friction(c)) continue;
    const int64_t t = tangent(c);
    const double f = impulse(t), s = speed(t);
    const double most = mu_[size_t(c)] * lam_[size_t(normal(c))] / rho_[size_t(t)];
    take(of_impulse(t, std::max(0.0, std::fabs(f) - most)));
    const double apart = of_impulse(t, std::fabs(f + (s > 0 ? most : -most)));
    take(std::min(std::fabs(of_speed(t)), apart));
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
  for (int64_t i = 0; i < n_; ++i)
    if (terms[size_t(i)] > 0) take(sum[size_t(i)] / terms[size_t(i)]);
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
    const double least = bound(normal(c), kWeak), slack = bound(tangent(c), kWeak);
    if (impulse(normal(c)) <= least && std::fabs(speed(normal(c))) <= least) {
      ++answer_->weak;
      own.normal = holds;
    }
    own.tangent = false, own.slides = 0;
    if (!own.normal) continue;
    const double s = w_[size_t(tangent(c))] * rho_[size_t(tangent(c))];
    own.slides = int8_t(-sign(s, slack));
    if (!has_friction(c) || own.slides != 0) continue;
    const double f = impulse(tangent(c));
    const double most = mu_[size_t(c)] * lam_[size_t(normal(c))] / rho_[size_t(tangent(c))];
    const bool at_bound = std::fabs(f) >= most - slack;
    if (at_bound) ++answer_->weak;
    own.tangent = holds || !at_bound;
    if (!own.tangent) own.slides = sign(f, slack);
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
/// those of least norm, if their signs are right; and the velocities may be. False where each of
/// several islands is to be asked.
bool ContactSolver::hold_weak() {
  const std::vector<HeldContact> found = held_, all = with_weak(true);
  const bool other = other_system(all);
  // What is 0 beside another island is weak here.
  if ((other || answer_->weak > 0 || factor_->system.singular()) && divisible()) return false;
  if (!other) {
    unique_ = moves_nothing(held_);
    return true;
  }
  const std::vector<double> lam = lam_, w = w_;
  held_ = all;
  const bool fit = solve_held(all, nullptr) && fits();
  unique_ = moves_nothing(all);
  if (fit) return true;
  held_ = found;
  factor_held(found);
  x_.resize(system_.size());
  lam_ = lam, w_ = w;
  measure();
  unique_ = unique_ && moves_nothing(found);
  return true;
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
