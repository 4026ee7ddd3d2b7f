// The scaling of scaled_program.cpp, of numbers that stand where a pattern says.
#include <algorithm>
#include <cmath>

#include "deq/layers/dense_vector.h"
#include "deq/layers/sparse_solver.h"

namespace deq {
namespace {

/// row(i, j, value) of every number.
template <class Visit>
void each(const RowPattern& M, std::vector<double>& values, const Visit& visit) {
  for (int64_t i = 0; i < M.rows(); ++i)
    for (int64_t e = M.begin[size_t(i)]; e < M.begin[size_t(i) + 1]; ++e)
      visit(i, M.column[size_t(e)], values[size_t(e)]);
}
template <class Visit>
void each(const std::vector<ops::SparseLdl::Place>& places, std::vector<double>& values,
          const Visit& visit) {
  for (size_t e = 0; e < places.size(); ++e) visit(places[e].row, places[e].column, values[e]);
}

std::vector<double> inverse_roots(std::vector<double> sizes) {
  for (double& x : sizes) x = inverse_power(std::sqrt(x));
  return sizes;
}
void times(std::vector<double>& x, const std::vector<double>& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] *= y[i];
}

void size_of_Q(SparseMatrices& s) {
  const double most = largest(s.Q), by = inverse_power(most);
  s.flat = most == 0;
  for (double& x : s.Q) x *= by;
  s.c *= by;
}

void rows_to_one(const RowPattern& M, std::vector<double>& values, std::vector<double>& by,
                 std::vector<int64_t>& empty) {
  for (int64_t i = 0; i < M.rows(); ++i) {
    const int64_t first = M.begin[size_t(i)], count = M.begin[size_t(i) + 1] - first;
    const double most = largest(values.data() + first, count), factor = inverse_power(most);
    if (most == 0) empty.push_back(i);
    for (int64_t e = first; e < first + count; ++e) values[size_t(e)] *= factor;
    by[size_t(i)] *= factor;
  }
}

void equilibrate(const SparsePattern& pattern, SparseMatrices& s) {
  const auto near = [](double x) { return x == 0 || (x > 1.0 / 16 && x < 16); };
  for (int round = 0; round < 12; ++round) {
    size_of_Q(s);
    std::vector<double> columns(s.D.size()), equalities(s.E.size()), inequalities(s.F.size());
    const auto see = [](double& size, double value) { size = std::max(size, std::fabs(value)); };
    each(pattern.upper, s.Q, [&](int64_t i, int64_t j, double& x) {
      see(columns[size_t(i)], x), see(columns[size_t(j)], x);
    });
    each(pattern.A, s.A, [&](int64_t i, int64_t j, double& x) {
      see(equalities[size_t(i)], x), see(columns[size_t(j)], x);
    });
    each(pattern.G, s.G, [&](int64_t i, int64_t j, double& x) {
      see(inequalities[size_t(i)], x), see(columns[size_t(j)], x);
    });
    if (std::ranges::all_of(columns, near) && std::ranges::all_of(equalities, near) &&
        std::ranges::all_of(inequalities, near))
      break;
    columns = inverse_roots(std::move(columns));
    equalities = inverse_roots(std::move(equalities));
    inequalities = inverse_roots(std::move(inequalities));
    const auto scale = [&](const std::vector<double>& rows) {
      return [&rows, &columns](int64_t i, int64_t j, double& x) {
        x *= rows[size_t(i)] * columns[size_t(j)];
      };
    };
    each(pattern.upper, s.Q, scale(columns));
    each(pattern.A, s.A, scale(equalities));
    each(pattern.G, s.G, scale(inequalities));
    times(s.D, columns);
    times(s.E, equalities);
    times(s.F, inequalities);
  }
  rows_to_one(pattern.A, s.A, s.E, s.empty_A);
  rows_to_one(pattern.G, s.G, s.F, s.empty_G);
  size_of_Q(s);
}

}  // namespace

SparseMatrices::SparseMatrices(const SparsePattern& pattern, const double* Q_, const double* A_,
                               const double* G_, double share)
    : Scales(pattern.shape),
      Q(pattern.upper.size()),
      A(A_, A_ + pattern.A.numbers()),
      G(G_, G_ + pattern.G.numbers()) {
  for (int64_t e = 0; e < pattern.Q.numbers(); ++e) {
    const int64_t into = pattern.into_upper[size_t(e)];
    finite &= std::fabs(Q_[e]) <= kLargestNumber;
    Q[size_t(into)] += into < shape.n ? Q_[e] : 0.5 * Q_[e];
  }
  for (std::vector<double>* x : {&Q, &A, &G})
    finite = bring_into_range(x->data(), int64_t(x->size())) && finite;
  if (!finite) return;
  equilibrate(pattern, *this);
  std::vector<double> shifted = Q, L(size_t(pattern.curvature.numbers())), own(size_t(shape.n)),
                      scratch(size_t(shape.n));
  const double more = share * largest(Q);
  for (int64_t i = 0; i < shape.n; ++i) shifted[size_t(i)] += more;
  pattern.curvature.factor(shifted.data(), L.data(), own.data(), scratch.data());
  concave = !flat && !std::ranges::all_of(own, [](double pivot) { return pivot > 0; });
}

}  // namespace deq
