// Small linear systems, one per row.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace deq::ops {

/// Factors of M (R, n, n), with partial pivoting by rows; a row's numbers are the same whatever
/// rows stand beside it. Singular rows give solutions that are not finite.
class RowFactors {
 public:
  /// Of the first `rows` of M, which is overwritten.
  void factor(const at::Tensor& M, int64_t rows);
  /// x = M^-1 b in place, b (R, n), first rows.
  void solve(const at::Tensor& b) const;

 private:
  at::Tensor lu_, pivots_;  // (R, n, n), (R, n) int32
  int64_t rows_ = 0;
};

}  // namespace deq::ops
