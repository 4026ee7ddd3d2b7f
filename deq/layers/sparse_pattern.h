// Where the matrices of sparse quadratic programs have numbers, and what is found once for all
// programs that have them there.
#pragma once

#include <memory>
#include <vector>

#include "deq/ops/quadratic_kernel.h"
#include "deq/ops/sparse_ldl.h"

namespace deq {

/// A matrix by rows (CSR): row i has columns column[begin[i]] ... column[begin[i + 1] - 1].
struct RowPattern {
  std::vector<int64_t> begin, column;
  int64_t rows() const { return int64_t(begin.size()) - 1; }
  int64_t numbers() const { return int64_t(column.size()); }
  bool operator==(const RowPattern&) const = default;
};

/// y += M x.
void add_times(const RowPattern& M, const double* values, const double* x, double* y);
/// y += M'x.
void add_transposed_times(const RowPattern& M, const double* values, const double* x, double* y);

/// Q, A and G, the upper half of Q's symmetric part, and the orderings and factors' patterns of
///
///     K = [Q A' G'; A . 0; G 0 .]   and of Q, each with its whole diagonal.
class SparsePattern {
 public:
  SparsePattern(RowPattern Q, RowPattern A, RowPattern G);

  const ops::QuadraticShape shape;
  const RowPattern Q, A, G;
  /// Q's symmetric part on and above the diagonal, all of the diagonal: its first n.
  std::vector<ops::SparseLdl::Place> upper;
  /// Number e of Q is in number into_upper[e] of `upper`, by half where it is not on the diagonal.
  std::vector<int64_t> into_upper;
  /// Of K: `upper`, then A's and G's numbers, then the p + m diagonal entries below Q's.
  ops::SparseLdl conditions;
  ops::SparseLdl curvature;  ///< of `upper`

  /// y += Q x.
  void add_curvature(const double* upper_values, const double* x, double* y) const;
};

/// That of these matrices, which the last few calls may have found already.
std::shared_ptr<const SparsePattern> sparse_pattern(RowPattern Q, RowPattern A, RowPattern G);

}  // namespace deq
