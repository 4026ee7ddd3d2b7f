// How each contact of one island ends: a search over systems of what is held (contact_sample.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "deq/layers/contact_islands.h"

namespace deq {

/// Keeps its memory from one island to the next, and nothing else. Numbers are finite.
class ContactSolver {
 public:
  /// `islands`: of the world, to be looked for; null: this is one. False where there are several
  /// and anything is to be found out that each of them should be asked by itself.
  bool solve(const ContactShape& shape, const ContactData& data, const ResolveOptions& options,
             const uint8_t* warm, ContactIslands* islands, ContactAnswer& answer,
             IslandFactor& factor, bool differentiable);

 private:
  static constexpr double kLeastShare = 1e-3;

  bool prepare();
  bool divisible() { return islands_ && islands_->several(shape_, data_); }
  void scale();
  void measure();

  // What a system of held rows says.
  bool solve_held(const std::vector<HeldContact>& held, const std::vector<double>* near);
  void factor_held(const std::vector<HeldContact>& held);
  void spread(const std::vector<HeldContact>& held);
  bool fits();  // all signs; otherwise `next_` says what would mend them
  bool exchange(std::vector<HeldContact> held, const std::vector<double>* near);

  // Where to begin.
  bool from_touch(const uint8_t* warm);
  std::vector<double> swept() const;
  std::vector<HeldContact> suggested(const std::vector<double>& lam) const;
  bool by_pivots();
  std::vector<HeldContact> paired(const std::vector<double>& lam);
  bool by_trying();
  bool loses_masses() const;

  bool finish(bool differentiable);
  void polish();
  void write_velocity();
  double violation(double least_share) const;
  bool moves_nothing(const std::vector<HeldContact>& held) const;
  bool smooth() const;
  std::vector<HeldContact> with_weak(bool holds);
  bool other_system(const std::vector<HeldContact>& held) const;
  bool hold_weak();
  void choose_gradient();
  void drop_dependent();

  bool has_friction(int64_t c) const {
    return mu_[size_t(c)] > 0 && A_[size_t(tangent(c) * (rows_ + 1))] > 0;
  }
  int64_t normal(int64_t c) const { return p_ + c; }
  int64_t tangent(int64_t c) const { return p_ + count_ + c; }
  double a(int64_t r, int64_t c) const { return A_[size_t(r * rows_ + c)]; }
  /// Roots of energies.
  double impulse(int64_t r) const { return lam_[size_t(r)] / rho_[size_t(r)]; }
  double speed(int64_t r) const { return rho_[size_t(r)] * (w_[size_t(r)] - c_[size_t(r)]); }
  /// Below this share of what its row is made of, an impulse or a speed is 0.
  double bound(int64_t r, double share) const {
    return share * std::max(size_[size_t(r)], kLeastShare * largest_);
  }

  ContactShape shape_;
  ContactData data_;
  const ResolveOptions* options_ = nullptr;
  ContactAnswer* answer_ = nullptr;
  IslandFactor* factor_ = nullptr;
  int64_t n_ = 0, p_ = 0, count_ = 0, rows_ = 0;
  std::vector<int32_t> used_;     // contacts whose normal is not 0
  std::vector<double> mu_;        // of these
  std::vector<const double*> R_;  // rows: joints, normals, tangents
  std::vector<double> X_, A_;     // M^-1 R' (rows, n), R M^-1 R'
  std::vector<double> free_, d_, c_, rho_;
  std::vector<double> lam_, w_;  // of all rows
  std::vector<HeldContact> held_, next_;
  std::vector<int32_t> system_;  // rows of the system
  std::vector<double> S_, x_;
  // Roots of energies: the terms of w - c in each row, without impulses and with those of lam_. To
  // each a little of the largest is added: what rounding of that leaves of a number that is 0.
  std::vector<double> own_, size_;
  double largest_ = 0;
  ContactIslands* islands_ = nullptr;
  bool unique_ = true;
};

}  // namespace deq
