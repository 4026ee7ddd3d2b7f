#include "deq/layers/contact_sample.h"

#include <algorithm>
#include <cmath>

#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

constexpr double kPivot = 1e-13;
constexpr double kGoodAdjoint = 1e-13;

}  // namespace

namespace {

/// M = LDU in place, without pivoting; false where a pivot is not positive.
bool eliminate(std::vector<double>& M, int64_t n) {
  for (int64_t c = 0; c < n; ++c) {
    const double* const pivot = &M[size_t(c * n)];
    if (!(pivot[c] > 0)) return false;
    for (int64_t r = c + 1; r < n; ++r) {
      double* const own = &M[size_t(r * n)];
      if (own[c] == 0) continue;
      const double before = own[r], share = own[c] /= pivot[c];
      for (int64_t j = c + 1; j < n; ++j) own[j] -= share * pivot[j];
      if (!(own[r] > kPivot * std::fabs(before))) return false;
    }
  }
  return true;
}

}  // namespace

bool MassFactor::factor(const double* M, int64_t n) {
  n_ = n;
  LU_.assign(M, M + n * n);
  diagonal_ = true;
  bool symmetric = true;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      diagonal_ &= M[i * n + j] == 0 && M[j * n + i] == 0;
      symmetric &= M[i * n + j] == M[j * n + i];
    }
  }
  if (!symmetric) {
    std::vector<double> half(static_cast<size_t>(n * n));
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) half[size_t(i * n + j)] = (M[i * n + j] + M[j * n + i]) / 2;
    if (!eliminate(half, n)) return false;
  }
  return eliminate(LU_, n);
}

void MassFactor::divide(double* x) const {
  for (int64_t i = 0; i < n_; ++i) x[i] /= LU_[size_t(i * n_ + i)];
}

void MassFactor::solve(double* x) const {
  if (diagonal_) return divide(x);
  for (int64_t i = 0; i < n_; ++i) x[i] -= dot(&LU_[size_t(i * n_)], x, i);
  for (int64_t i = n_ - 1; i >= 0; --i) {
    const double* const row = &LU_[size_t(i * n_)];
    x[i] = (x[i] - dot(row + i + 1, x + i + 1, n_ - 1 - i)) / row[i];
  }
}

void MassFactor::solve_transposed(double* x) const {
  if (diagonal_) return divide(x);
  for (int64_t i = 0; i < n_; ++i) {
    const double* const row = &LU_[size_t(i * n_)];
    x[i] /= row[i];
    for (int64_t j = i + 1; j < n_; ++j) x[j] -= row[j] * x[i];
  }
  for (int64_t i = n_ - 1; i >= 0; --i) {
    const double* const row = &LU_[size_t(i * n_)];
    for (int64_t j = 0; j < i; ++j) x[j] -= row[j] * x[i];
  }
}

namespace {

/// into += x y
void add(double x, const double* y, int64_t n, double* into) {
  if (x == 0) return;
  for (int64_t j = 0; j < n; ++j) into[j] += x * y[j];
}

/// One adjoint: u and y of M'u + C'y = f, B u = -h.
class Adjoint {
 public:
  Adjoint(const ContactShape& shape, const ContactData& data, const IslandFactor& factor)
      : shape_(shape), data_(data), factor_(factor), k_(int64_t(factor.rows.size())) {}

  /// From f and h, in place, with a step of refinement where it helps; the residual.
  double refine(std::vector<double>& u, std::vector<double>& y) const {
    const std::vector<double> f = u, h = y;
    solve(u, y);
    std::vector<double> rf = f, rh = h;
    const double residual = this->residual(u, y, rf, rh);
    if (residual <= kGoodAdjoint || factor_.system.singular()) return residual;
    solve(rf, rh);
    add(1, rf.data(), shape_.n, u.data());
    add(1, rh.data(), k_, y.data());
    rf = f, rh = h;
    return this->residual(u, y, rf, rh);
  }

 private:
  void solve(std::vector<double>& f, std::vector<double>& h) const {
    const int64_t n = shape_.n;
    std::vector<double>& t = scratch_;
    t = f;
    factor_.mass.solve_transposed(t.data());
    for (int64_t a = 0; a < k_; ++a)
      h[size_t(a)] = factor_.scale[size_t(a)] * (h[size_t(a)] + along(a, t.data()));
    factor_.system.solve_transposed(h.data());
    for (int64_t a = 0; a < k_; ++a) {
      h[size_t(a)] *= factor_.scale[size_t(a)];
      add(-h[size_t(a)], held(a), n, f.data());
    }
    factor_.mass.solve_transposed(f.data());
  }

  /// f - M'u - C'y and h + B u, in place of f and h; the largest of them as a share of the largest
  /// of f, h and y, all in roots of energies.
  double residual(const std::vector<double>& u, const std::vector<double>& y,
                  std::vector<double>& f, std::vector<double>& h) const {
    const int64_t n = shape_.n;
    const auto root = [&](int64_t j) { return std::sqrt(data_.mass[j * n + j]); };
    double size = 0, worst = 0;
    for (int64_t j = 0; j < n; ++j) size = std::max(size, std::fabs(f[size_t(j)]) / root(j));
    for (int64_t i = 0; i < n; ++i) add(-u[size_t(i)], data_.mass + i * n, n, f.data());
    for (int64_t a = 0; a < k_; ++a) {
      const double rho = factor_.scale[size_t(a)];
      size = std::max({size, rho * std::fabs(h[size_t(a)]), std::fabs(y[size_t(a)]) / rho});
      add(-y[size_t(a)], held(a), n, f.data());
      h[size_t(a)] += along(a, u.data());
    }
    worst = std::max(worst, largest_open(h));
    for (int64_t j = 0; j < n; ++j) worst = std::max(worst, std::fabs(f[size_t(j)]) / root(j));
    return size > 0 ? worst / size : worst;
  }

  /// Of h in roots of energies, without what asks for impulses that are one of many.
  double largest_open(const std::vector<double>& h) const {
    std::vector<double> left = h;
    for (int64_t a = 0; a < k_; ++a) left[size_t(a)] *= factor_.scale[size_t(a)];
    for (const std::vector<double>& z : factor_.system.right_null())
      add(-dot(z.data(), left.data(), k_), z.data(), k_, left.data());
    return largest(left);
  }
  const double* held(int64_t a) const {
    const int64_t r = factor_.rows[size_t(a)], n = shape_.n;
    if (r < shape_.p) return data_.joint + r * n;
    if (r < shape_.p + shape_.m) return data_.normal + (r - shape_.p) * n;
    return data_.tangent + (r - shape_.p - shape_.m) * n;
  }
  /// s mu of a normal row whose contact slides; else 0.
  double slope(int64_t a) const {
    const int64_t i = factor_.rows[size_t(a)] - shape_.p;
    if (i < 0 || i >= shape_.m) return 0;
    return factor_.held[size_t(i)].slides * data_.friction[i];
  }
  double along(int64_t a, const double* x) const {
    const double with = slope(a);
    const int64_t i = factor_.rows[size_t(a)] - shape_.p;
    return dot(held(a), x, shape_.n) +
           (with != 0 ? with * dot(data_.tangent + i * shape_.n, x, shape_.n) : 0.0);
  }

  ContactShape shape_;
  const ContactData& data_;
  const IslandFactor& factor_;
  int64_t k_;
  mutable std::vector<double> scratch_;
};

}  // namespace

double IslandFactor::solve_adjoint(const ContactShape& shape, const ContactData& data,
                                   ContactAdjoint& adjoint) const {
  const auto [n, m, p] = shape;
  const auto entry = [&, m = m, p = p](int32_t r) -> double& {
    return r < p       ? adjoint.joint[size_t(r)]
           : r < p + m ? adjoint.normal[size_t(r - p)]
                       : adjoint.tangent[size_t(r - p - m)];
  };
  for (int64_t i = 0; i < m; ++i)
    adjoint.normal[size_t(i)] +=
        held[size_t(i)].slides * data.friction[i] * adjoint.tangent[size_t(i)];
  thread_local std::vector<double> y;
  y.clear();
  for (const int32_t r : rows) y.push_back(entry(r));
  const double residual = Adjoint(shape, data, *this).refine(adjoint.u, y);
  std::ranges::fill(adjoint.joint, 0.0);
  std::ranges::fill(adjoint.normal, 0.0);
  std::ranges::fill(adjoint.tangent, 0.0);
  for (size_t a = 0; a < rows.size(); ++a) entry(rows[a]) = y[a];
  return residual;
}

}  // namespace deq
