// How each contact of one world ends: a search over systems of what is held (contact_sample.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "deq/layers/contact_sample.h"

namespace deq {

/// Keeps its memory from one world to the next, and nothing else.
class ContactSolver {
 public:
  void solve(const ContactShape& shape, const ContactData& data, const ResolveOptions& options,
             const uint8_t* warm, ContactAnswer& answer, ContactFactor& factor,
             bool differentiable);

 private:
  bool finite() const;
  bool prepare();
  void scale();

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

  void finish(bool differentiable);
  void polish();
  double violation() const;
  bool moves_nothing(const std::vector<HeldContact>& held) const;
  bool smooth() const;
  std::vector<HeldContact> with_weak(bool holds);
  bool other_system(const std::vector<HeldContact>& held) const;
  void hold_weak();
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
  /// How large speeds and impulses are, in roots of energies: of the island, and at one row: what
  /// its speed is the sum of, and a thousandth of the island's.
  double size() const;
  double size(int64_t r) const { return std::max(own_size_[size_t(r)], island_size_ / 1000); }
  double size_of_contact(int64_t c) const { return std::max(size(normal(c)), size(tangent(c))); }
  void see_impulses();

  ContactShape shape_;
  ContactData data_;
  const ResolveOptions* options_ = nullptr;
  ContactAnswer* answer_ = nullptr;
  ContactFactor* factor_ = nullptr;
  int64_t n_ = 0, p_ = 0, count_ = 0, rows_ = 0;
  std::vector<int32_t> used_;     // contacts whose normal is not 0
  std::vector<double> mu_;        // of these
  std::vector<const double*> R_;  // rows: joints, normals, tangents
  std::vector<double> X_, A_;     // M^-1 R' (rows, n), R M^-1 R'
  std::vector<double> free_, d_, c_, rho_;
  std::vector<double> lam_, w_;                // of all rows
  std::vector<double> base_terms_, own_size_;  // of all rows
  std::vector<int32_t> pushing_;               // rows whose impulse is not 0
  std::vector<HeldContact> held_, next_;
  std::vector<int32_t> system_;  // rows of the system
  std::vector<double> S_, x_;
  double base_size_ = 0, island_size_ = 0;
  double worst_sign_ = 0;  // what fits() found, as a share of size(r)
  bool unique_ = true;
};

}  // namespace deq
