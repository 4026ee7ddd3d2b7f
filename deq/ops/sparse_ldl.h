// P K P' = L D L' of sparse symmetric matrices that share a pattern: P and where L has numbers are
// found once, and each matrix then takes arithmetic alone. Without pivoting: for matrices that have
// such factors in any order, as quasidefinite ones do (Vanderbei, "Symmetric quasidefinite
// matrices", 1995).
//
// P by minimum degree (Tinney and Walker 1967), L's pattern by the elimination tree (Liu 1990), L
// row by row (Davis, "Direct methods for sparse linear systems", 2006, ch. 4).
#pragma once

#include <cstdint>
#include <vector>

namespace deq::ops {

/// Ordering and pattern. Safe to use from many threads.
class SparseLdl {
 public:
  /// A place where the matrices have a number; its mirror image has the same.
  struct Place {
    int32_t row = 0, column = 0;
  };

  /// `places`: each once, of either half, the whole diagonal among them. n below 2^31.
  SparseLdl(int64_t n, const std::vector<Place>& places);

  int64_t size() const { return n_; }
  int64_t numbers() const { return int64_t(row_.size()); }  ///< in L below its diagonal

  /// values[k] stands at places[k]. L (numbers()), D (size()), scratch (size()) zeros before and
  /// after. Where D has a 0, numbers are not finite.
  void factor(const double* values, double* L, double* D, double* scratch) const;
  /// x = K^-1 x, x and scratch (size()).
  void solve(const double* L, const double* D, double* x, double* scratch) const;

 private:
  void find_order(const std::vector<Place>& places);
  void find_pattern(const std::vector<Place>& places);

  int64_t n_;
  std::vector<int32_t> order_;  // row i of L is row order_[i] of K
  // Of K's part above the diagonal, in L's order, by columns: rows, and which place each is.
  std::vector<int64_t> from_begin_;
  std::vector<int32_t> from_row_, from_place_, diagonal_;
  // L by rows: columns, in ascending order, and where column_'s part of L that is known ends.
  std::vector<int64_t> left_begin_, end_;
  std::vector<int32_t> left_;
  // L by columns, where its numbers stand.
  std::vector<int64_t> begin_;
  std::vector<int32_t> row_;
};

}  // namespace deq::ops
