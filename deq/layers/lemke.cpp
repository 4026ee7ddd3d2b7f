#include "deq/layers/lemke.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace deq {
namespace {

constexpr double kPivot = 1e-9;  // entries below it are no pivots
constexpr double kTie = 1e-12;   // ratios that are this close are equal

/// Columns: w (k), z (k), z0, right hand side.
class Tableau {
 public:
  Tableau(const std::vector<double>& M, const std::vector<double>& q)
      : k_(int64_t(q.size())), columns_(2 * k_ + 2), T_(size_t(k_ * columns_)), basis_(q.size()) {
    std::iota(basis_.begin(), basis_.end(), 0);
    for (int64_t i = 0; i < k_; ++i) {
      double* const row = this->row(i);
      row[i] = 1;
      for (int64_t j = 0; j < k_; ++j) row[k_ + j] = -M[size_t(i * k_ + j)];
      row[2 * k_] = -1;
      row[2 * k_ + 1] = q[size_t(i)];
    }
  }

  int64_t covering() const { return 2 * k_; }
  int64_t basic(int64_t r) const { return basis_[size_t(r)]; }
  double value(int64_t r) const { return T_[size_t(r * columns_ + 2 * k_ + 1)]; }
  int64_t complement(int64_t variable) const {
    return variable < k_ ? variable + k_ : variable - k_;
  }

  /// The first pivot: the lexicographically least row of (q, I).
  int64_t lowest() const {
    int64_t best = 0;
    for (int64_t r = 1; r < k_; ++r) {
      if (before(r, 1, best, 1)) best = r;
    }
    return best;
  }
  /// The lexicographic ratio test; -1: a ray. z0 leaves wherever it ties.
  int64_t leaving(int64_t entering) const {
    int64_t best = -1;
    for (int64_t r = 0; r < k_; ++r) {
      const double own = at(r, entering);
      if (own > kPivot && (best < 0 || before(r, own, best, at(best, entering)))) best = r;
    }
    if (best < 0) return -1;
    const double ratio = value(best) / at(best, entering);
    for (int64_t r = 0; r < k_; ++r) {
      const double own = at(r, entering);
      if (basic(r) == covering() && own > kPivot && value(r) / own <= ratio + kTie) return r;
    }
    return best;
  }
  void pivot(int64_t r, int64_t entering) {
    double* const own = row(r);
    const double scale = 1 / own[entering];
    for (int64_t j = 0; j < columns_; ++j) own[j] *= scale;
    own[entering] = 1;
    for (int64_t i = 0; i < k_; ++i) {
      double* const other = row(i);
      const double share = other[entering];
      if (i == r || share == 0) continue;
      for (int64_t j = 0; j < columns_; ++j) other[j] -= share * own[j];
      other[entering] = 0;
    }
    basis_[size_t(r)] = entering;
  }

 private:
  double* row(int64_t r) { return T_.data() + r * columns_; }
  double at(int64_t r, int64_t c) const { return T_[size_t(r * columns_ + c)]; }
  /// Whether row r / a comes before row s / b.
  bool before(int64_t r, double a, int64_t s, double b) const {
    const auto less = [&](int64_t c, bool& decided) {
      const double x = at(r, c) / a, y = at(s, c) / b;
      decided = std::fabs(x - y) > kTie * std::max({1.0, std::fabs(x), std::fabs(y)});
      return x < y;
    };
    bool decided = false;
    const bool by_value = less(2 * k_ + 1, decided);
    if (decided) return by_value;
    for (int64_t c = 0; c < k_; ++c) {
      const bool by_column = less(c, decided);
      if (decided) return by_column;
    }
    return false;
  }

  int64_t k_, columns_;
  std::vector<double> T_;
  std::vector<int64_t> basis_;
};

}  // namespace

Complementarity lemke(const std::vector<double>& M, const std::vector<double>& q,
                      int64_t max_pivots) {
  const auto k = int64_t(q.size());
  Complementarity result;
  result.z.assign(size_t(k), 0);
  if (std::ranges::all_of(q, [](double x) { return x >= 0; })) {
    result.found = true;
    return result;
  }
  Tableau tableau(M, q);
  int64_t r = tableau.lowest(), entering = tableau.covering();
  for (; result.pivots < max_pivots; ++result.pivots) {
    const int64_t left = tableau.basic(r);
    tableau.pivot(r, entering);
    if (left == tableau.covering()) {
      result.found = true;
      break;
    }
    entering = tableau.complement(left);
    r = tableau.leaving(entering);
    if (r < 0) return result;
  }
  for (int64_t i = 0; i < k && result.found; ++i) {
    const int64_t variable = tableau.basic(i);
    if (variable >= k && variable < 2 * k)
      result.z[size_t(variable - k)] = std::max(0.0, tableau.value(i));
  }
  return result;
}

}  // namespace deq
