#include "deq/layers/square_factor.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

double* column(std::vector<double>& x, int64_t k, int64_t j) { return x.data() + j * k; }
const double* column(const std::vector<double>& x, int64_t k, int64_t j) {
  return x.data() + j * k;
}

}  // namespace

void SquareFactor::factor(const std::vector<double>& S, int64_t k) {
  k_ = k;
  LU_.assign(S.begin(), S.begin() + k * k);
  singular_ = !eliminate();
  if (singular_) decompose(S);
}

bool SquareFactor::eliminate() {
  const int64_t k = k_;
  order_.resize(size_t(k));
  std::iota(order_.begin(), order_.end(), 0);
  for (int64_t c = 0; c < k; ++c) {
    int64_t best = c;
    for (int64_t r = c + 1; r < k; ++r) {
      if (std::fabs(LU_[size_t(r * k + c)]) > std::fabs(LU_[size_t(best * k + c)])) best = r;
    }
    if (!(std::fabs(LU_[size_t(best * k + c)]) > kSmallPivot)) return false;
    if (best != c) {
      std::swap_ranges(&LU_[size_t(best * k)], &LU_[size_t(best * k)] + k, &LU_[size_t(c * k)]);
      std::swap(order_[size_t(best)], order_[size_t(c)]);
    }
    const double* const pivot = &LU_[size_t(c * k)];
    for (int64_t r = c + 1; r < k; ++r) {
      double* const own = &LU_[size_t(r * k)];
      const double share = own[c] /= pivot[c];
      for (int64_t j = c + 1; j < k; ++j) own[j] -= share * pivot[j];
    }
  }
  return true;
}

namespace {

/// A (k rows, c columns) to an upper triangle by Householder's reflections, which Q (k, k)
/// collects; with `order`, each time the largest column that is left. How many are above
/// kSmallPivot.
int64_t triangulate(std::vector<double>& A, int64_t k, int64_t c, std::vector<double>& Q,
                    std::vector<int32_t>* order) {
  std::vector<double> v(static_cast<size_t>(k)), w(static_cast<size_t>(k));
  double first = 1;
  for (int64_t step = 0; step < std::min(k, c); ++step) {
    const int64_t left = k - step;
    const auto square = [&](int64_t j) {
      return dot(column(A, k, j) + step, column(A, k, j) + step, left);
    };
    int64_t best = step;
    double most = square(step);
    for (int64_t j = step + 1; j < c && order; ++j)
      if (square(j) > most * (1 + 1e-8)) best = j, most = square(j);
    const double size = std::sqrt(most);
    first = std::max(first, size);
    if (!(size > SquareFactor::kSmallPivot * first)) return step;
    if (best != step) {
      std::swap_ranges(column(A, k, best), column(A, k, best) + k, column(A, k, step));
      std::swap((*order)[size_t(best)], (*order)[size_t(step)]);
    }
    double* const own = column(A, k, step) + step;
    std::copy_n(own, left, v.begin());
    const double head = own[0] > 0 ? -size : size;
    v[0] -= head;
    const double share = 2 / dot(v.data(), v.data(), left);
    for (int64_t j = step + 1; j < c; ++j) {
      double* const other = column(A, k, j) + step;
      const double part = share * dot(v.data(), other, left);
      for (int64_t i = 0; i < left; ++i) other[i] -= part * v[size_t(i)];
    }
    std::fill_n(own, left, 0.0);
    own[0] = head;
    std::fill(w.begin(), w.end(), 0.0);
    for (int64_t i = 0; i < left; ++i)
      for (int64_t r = 0; r < k; ++r) w[size_t(r)] += v[size_t(i)] * column(Q, k, step + i)[r];
    for (int64_t i = 0; i < left; ++i)
      for (int64_t r = 0; r < k; ++r)
        column(Q, k, step + i)[r] -= share * v[size_t(i)] * w[size_t(r)];
  }
  return std::min(k, c);
}

std::vector<double> identity(int64_t k) {
  std::vector<double> I(size_t(k * k));
  for (int64_t i = 0; i < k; ++i) I[size_t(i * k + i)] = 1;
  return I;
}

}  // namespace

/// S P = U [R; 0] with the rank's rows in R, and R' = Z [T'; 0].
void SquareFactor::decompose(const std::vector<double>& S) {
  const int64_t k = k_;
  std::vector<double> A(size_t(k * k));
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < k; ++j) A[size_t(j * k + i)] = S[size_t(i * k + j)];
  std::iota(order_.begin(), order_.end(), 0);
  U_ = identity(k);
  rank_ = triangulate(A, k, k, U_, &order_);
  std::vector<double> R(size_t(rank_ * k)), Z = identity(k);
  for (int64_t i = 0; i < rank_; ++i)
    for (int64_t j = 0; j < k; ++j) R[size_t(i * k + j)] = A[size_t(j * k + i)];
  triangulate(R, k, rank_, Z, nullptr);
  T_.assign(size_t(rank_ * rank_), 0);
  for (int64_t i = 0; i < rank_; ++i)
    for (int64_t j = 0; j <= i; ++j) T_[size_t(i * rank_ + j)] = R[size_t(i * k + j)];
  V_.resize(size_t(k * k));
  for (int64_t j = 0; j < k; ++j)
    for (int64_t i = 0; i < k; ++i) column(V_, k, j)[order_[size_t(i)]] = column(Z, k, j)[i];
}

std::vector<std::vector<double>> SquareFactor::null_vectors(
    const std::vector<double>& basis) const {
  std::vector<std::vector<double>> found;
  if (!singular_) return found;
  for (int64_t j = rank_; j < k_; ++j)
    found.emplace_back(column(basis, k_, j), column(basis, k_, j) + k_);
  return found;
}

/// x = V T^-1 U'x, or x = U T'^-1 V'x.
void SquareFactor::pseudo(bool transposed, double* x) const {
  const std::vector<double>&from = transposed ? V_ : U_, &to = transposed ? U_ : V_;
  std::vector<double> y(static_cast<size_t>(rank_));
  for (int64_t j = 0; j < rank_; ++j) y[size_t(j)] = dot(column(from, k_, j), x, k_);
  const auto T = [&](int64_t i, int64_t j) { return T_[size_t(i * rank_ + j)]; };
  for (int64_t i = 0; i < rank_ && !transposed; ++i)
    y[size_t(i)] = (y[size_t(i)] - dot(&T_[size_t(i * rank_)], y.data(), i)) / T(i, i);
  for (int64_t i = rank_ - 1; i >= 0 && transposed; --i) {
    for (int64_t j = i + 1; j < rank_; ++j) y[size_t(i)] -= T(j, i) * y[size_t(j)];
    y[size_t(i)] /= T(i, i);
  }
  std::fill_n(x, k_, 0.0);
  for (int64_t j = 0; j < rank_; ++j)
    for (int64_t i = 0; i < k_; ++i) x[i] += y[size_t(j)] * column(to, k_, j)[i];
}

void SquareFactor::solve(double* x) const {
  if (singular_) return pseudo(false, x);
  const int64_t k = k_;
  thread_local std::vector<double> y;
  y.resize(size_t(k));
  for (int64_t i = 0; i < k; ++i)
    y[size_t(i)] = x[order_[size_t(i)]] - dot(&LU_[size_t(i * k)], y.data(), i);
  for (int64_t i = k - 1; i >= 0; --i) {
    double sum = y[size_t(i)];
    for (int64_t j = i + 1; j < k; ++j) sum -= LU_[size_t(i * k + j)] * x[j];
    x[i] = sum / LU_[size_t(i * k + i)];
  }
}

void SquareFactor::solve_transposed(double* x) const {
  if (singular_) return pseudo(true, x);
  const int64_t k = k_;
  thread_local std::vector<double> y;
  y.assign(x, x + k);
  for (int64_t i = 0; i < k; ++i) {
    y[size_t(i)] /= LU_[size_t(i * k + i)];
    for (int64_t j = i + 1; j < k; ++j) y[size_t(j)] -= LU_[size_t(i * k + j)] * y[size_t(i)];
  }
  for (int64_t i = k - 1; i >= 0; --i) {
    for (int64_t j = 0; j < i; ++j) y[size_t(j)] -= LU_[size_t(i * k + j)] * y[size_t(i)];
  }
  for (int64_t i = 0; i < k; ++i) x[order_[size_t(i)]] = y[size_t(i)];
}

}  // namespace deq
