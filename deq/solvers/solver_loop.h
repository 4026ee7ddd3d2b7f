// What every loop of a solve is made of, wherever its numbers are: f, the rows, what is known of
// each, and the end.
#pragma once

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "deq/solvers/driver.h"

namespace deq {

using Numbers = std::vector<double>;
using Flags = std::vector<char>;
// Keeps 0 / 0 of a row that is exactly zero at zero: converged. Below every norm that a float has.
inline constexpr double kTiny = 1e-100;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline bool any(const Flags& rows) { return std::find(rows.begin(), rows.end(), 1) != rows.end(); }
inline bool all(const Flags& rows) { return std::find(rows.begin(), rows.end(), 0) == rows.end(); }

/// (R) of a type, from numbers on the host.
template <class T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType type) {
  return at::from_blob(const_cast<T*>(values.data()), {int64_t(values.size())}, type).clone();
}

/// One evaluation, judged row by row.
struct Measured {
  at::Tensor g;  // (R, n)
  Numbers g_norm, f_norm;
  Numbers residual;  // relative
  Numbers ratio;     // of |g| to what the tolerances allow: at most 1 where they are met

  Measured(const at::Tensor& z, const at::Tensor& fz, const StopRule& stop,
           TensorPool* pool = nullptr);
};

class SolverLoop {
 public:
  SolverLoop(const Map& f, const at::Tensor& z0, const StopRule& stop, const Layout& layout);

 protected:
  /// f at z (R, n), as (R, n).
  at::Tensor call(const at::Tensor& z, const std::vector<int64_t>& done);
  /// The largest value among the rows that each row depends on, itself included.
  Numbers over_dependencies(Numbers value) const;
  void retire(size_t row, Reason reason, int64_t step);
  /// By position, the best iterates of one sample may stem from different steps, and a position's
  /// residual depends on those before it, which may have moved since the position was given up. So
  /// the residuals are those of the last evaluation where that was of what is returned, `z`;
  /// otherwise that is measured once more.
  void verify(const at::Tensor& z, int64_t step);
  Solution finish();

  TensorPool pool_;  // what the steps need, again and again
  Map::Series f_;
  std::vector<int64_t> shape_;
  StopRule stop_;
  Layout layout_;
  size_t rows_;
  at::Tensor start_;  // (R, n) z0, the caller's memory perhaps
  at::Tensor best_;   // (R, n) the best iterate of every row
  Numbers merit_;     // its merit: the ratio to the tolerance, over the rows it depends on
  Numbers residual_;  // its own relative residual
  Numbers last_;      // the same at the latest evaluation, best or not
  Numbers own_;       // the latest ratio of a row by itself; infinite where it failed
  Flags active_;      // not done
  std::vector<uint8_t> reason_;
  std::vector<int64_t> steps_;
  Numbers trace_;  // residuals of every row at every step
  int64_t evaluations_ = 0;
};

}  // namespace deq
