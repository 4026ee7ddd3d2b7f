// Where the search for how each contact of a world ends begins: from what is known, from a few
// sweeps, from everything.
#include <algorithm>
#include <cmath>

#include "deq/layers/contact_solver.h"
#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

constexpr int kSweeps = 8;
constexpr int64_t kTried = 5;     // contacts of which all combinations are tried
constexpr double kNearly = 1e-5;  // of the size of impulses and speeds: rounding might do it

}  // namespace

bool ContactSolver::from_touch(const uint8_t* warm) {
  std::vector<HeldContact> held(static_cast<size_t>(count_));
  for (int64_t c = 0; c < count_; ++c) {
    const Touch touch = Touch(std::min<uint8_t>(3, warm[used_[size_t(c)]]));
    HeldContact& own = held[size_t(c)];
    own.normal = touch != Touch::Open;
    if (!own.normal || !has_friction(c)) continue;
    own.tangent = touch == Touch::Sticks;
    own.slides = touch == Touch::Up ? 1 : touch == Touch::Down ? -1 : 0;
  }
  return exchange(std::move(held), nullptr);
}

/// A few sweeps of projected Gauss-Seidel.
std::vector<double> ContactSolver::swept() const {
  std::vector<double> lam(static_cast<size_t>(rows_));
  const auto change = [&](int64_t r) {
    const double w = d_[size_t(r)] + dot(&A_[size_t(r * rows_)], lam.data(), rows_);
    return a(r, r) > 0 ? (c_[size_t(r)] - w) / a(r, r) : 0.0;
  };
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    for (int64_t j = 0; j < p_; ++j) lam[size_t(j)] += change(j);
    for (int64_t c = 0; c < count_; ++c) {
      double& own = lam[size_t(normal(c))];
      own = std::max(0.0, own + change(normal(c)));
      if (!has_friction(c)) continue;
      const double most = mu_[size_t(c)] * own;
      double& f = lam[size_t(tangent(c))];
      f = std::clamp(f + change(tangent(c)), -most, most);
    }
  }
  return lam;
}

std::vector<HeldContact> ContactSolver::suggested(const std::vector<double>& lam) const {
  std::vector<HeldContact> held(static_cast<size_t>(count_));
  for (int64_t c = 0; c < count_; ++c) {
    HeldContact& own = held[size_t(c)];
    own.normal = lam[size_t(normal(c))] > 0;
    if (!own.normal || !has_friction(c)) continue;
    const double most = mu_[size_t(c)] * lam[size_t(normal(c))], f = lam[size_t(tangent(c))];
    own.tangent = std::fabs(f) < (1 - 1e-12) * most;
    if (!own.tangent) own.slides = int8_t((f > 0) - (f < 0));
  }
  return held;
}

/// Every combination, for few contacts. Where no system was singular, and none had all signs nearly
/// right, there is no solution.
bool ContactSolver::by_trying() {
  if (count_ > kTried) return false;
  std::vector<int> digits(static_cast<size_t>(count_));
  bool open = false;
  for (;;) {
    std::vector<HeldContact> held(static_cast<size_t>(count_));
    for (int64_t c = 0; c < count_; ++c) {
      const int digit = digits[size_t(c)];
      held[size_t(c)] = {digit > 0, digit == 1 && has_friction(c),
                         int8_t(digit == 2   ? 1
                                : digit == 3 ? -1
                                             : 0)};
    }
    if (answer_->steps >= options_->stop.max_steps) return false;
    ++answer_->steps;
    held_ = held;
    const bool solved = solve_held(held_, nullptr);
    if (solved && fits()) return true;
    open |= factor_->system.singular() || worst_sign_ <= kNearly;
    int64_t c = 0;
    for (; c < count_; ++c) {
      int& digit = digits[size_t(c)];
      if (++digit < (has_friction(c) ? 4 : 2)) break;
      digit = 0;
    }
    if (c < count_) continue;
    if (!open) answer_->reason = Reason::Infeasible;
    return false;
  }
}

}  // namespace deq
