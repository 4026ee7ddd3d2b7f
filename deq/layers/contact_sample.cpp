#include "deq/layers/contact_sample.h"

#include <algorithm>
#include <cmath>

#include "deq/layers/contact_solver.h"
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
  Adjoint(const ContactShape& shape, const ContactData& data, const ContactFactor& factor)
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
  const ContactFactor& factor_;
  int64_t k_;
  mutable std::vector<double> scratch_;
};

}  // namespace

double ContactFactor::solve_adjoint(const ContactShape& shape, const ContactData& data,
                                    const ContactCotangents& g, ContactAdjoint& found) const {
  const auto [n, m, p] = shape;
  const auto k = int64_t(rows.size());
  const Adjoint adjoint(shape, data, *this);
  thread_local std::vector<double> y;
  found.u.assign(g.velocity, g.velocity + n);
  y.resize(size_t(k));
  for (int64_t a = 0; a < k; ++a) {
    const int64_t r = rows[size_t(a)], i = r < p + m ? r - p : r - p - m;
    if (r < p) {
      y[size_t(a)] = g.joint[r];
    } else if (r < p + m) {
      y[size_t(a)] = g.normal[i] + held[size_t(i)].slides * data.friction[i] * g.friction[i];
    } else {
      y[size_t(a)] = g.friction[i];
    }
  }
  const double residual = adjoint.refine(found.u, y);
  found.joint.assign(size_t(p), 0);
  found.normal.assign(size_t(m), 0), found.tangent.assign(size_t(m), 0);
  for (int64_t a = 0; a < k; ++a) {
    const int64_t r = rows[size_t(a)];
    (r < p       ? found.joint[size_t(r)]
     : r < p + m ? found.normal[size_t(r - p)]
                 : found.tangent[size_t(r - p - m)]) = y[size_t(a)];
  }
  return residual;
}

void add_gradients(const ContactShape& shape, const ContactData& data, const ContactAnswer& answer,
                   const std::vector<HeldContact>& held, const ContactAdjoint& adjoint,
                   const ContactCotangents& g, const ContactGradients& into) {
  const auto [n, m, p] = shape;
  const auto& [u, yn, yt, ye] = adjoint;
  if (into.impulse) add(1, u.data(), n, into.impulse);
  for (int64_t i = 0; i < n; ++i) {
    if (into.velocity) add(u[size_t(i)], data.mass + i * n, n, into.velocity);
    if (!into.mass) continue;
    for (int64_t j = 0; j < n; ++j)
      into.mass[i * n + j] -= u[size_t(i)] * (answer.velocity[j] - data.velocity[j]);
  }
  for (int64_t j = 0; j < p; ++j) {
    if (into.joint_bias) into.joint_bias[j] -= ye[size_t(j)];
    if (!into.joint) continue;
    add(answer.joint[j], u.data(), n, into.joint + j * n);
    add(-ye[size_t(j)], answer.velocity, n, into.joint + j * n);
  }
  for (int64_t i = 0; i < m; ++i) {
    const HeldContact& own = held[size_t(i)];
    if (!own.normal && !own.tangent && answer.normal[i] == 0) continue;
    const double *const normal = data.normal + i * n, *const tangent = data.tangent + i * n;
    const double before = dot(normal, data.velocity, n), e = data.restitution[i];
    if (into.velocity) add(-e * yn[size_t(i)], normal, n, into.velocity);
    if (into.normal) {
      add(answer.normal[i], u.data(), n, into.normal + i * n);
      add(-yn[size_t(i)], answer.velocity, n, into.normal + i * n);
      add(-e * yn[size_t(i)], data.velocity, n, into.normal + i * n);
    }
    if (into.tangent) {
      add(answer.friction[i], u.data(), n, into.tangent + i * n);
      add(-yt[size_t(i)], answer.velocity, n, into.tangent + i * n);
    }
    if (into.restitution) into.restitution[i] -= yn[size_t(i)] * before;
    if (into.bias) into.bias[i] -= yn[size_t(i)];
    if (into.friction)
      into.friction[i] +=
          own.slides * answer.normal[i] * (dot(tangent, u.data(), n) + g.friction[i]);
  }
}

void solve_contact(const ContactShape& shape, const ContactData& data,
                   const ResolveOptions& options, const uint8_t* warm, ContactAnswer& answer,
                   ContactFactor* factor) {
  thread_local ContactSolver solver;
  thread_local ContactFactor passing;
  solver.solve(shape, data, options, warm, answer, factor ? *factor : passing, factor != nullptr);
}

}  // namespace deq
