#pragma once

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "deq/solvers/driver.h"

namespace deq {

using Numbers = std::vector<double>;
using Flags = std::vector<char>;
// A trace of at most so many numbers is kept, 32 MB: beyond them it would be most of a solve.
inline constexpr size_t kTraceNumbers = size_t(1) << 22;
// By this factor a last iterate may be worse than the best.
inline constexpr double kFarWorse = 3;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline bool any(const Flags& rows) { return std::find(rows.begin(), rows.end(), 1) != rows.end(); }
inline bool all(const Flags& rows) { return std::find(rows.begin(), rows.end(), 0) == rows.end(); }

/// (R) of a type, from numbers on the host.
template <class T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType type) {
  return at::from_blob(const_cast<T*>(values.data()), {int64_t(values.size())}, type).clone();
}

/// Share of |f(z)| below which a difference may be one of rounding.
double round_off(at::ScalarType type);

/// One evaluation, judged row by row.
struct Measured {
  at::Tensor g;  // (R, n)
  Numbers g_norm, f_norm;
  double round_off;  // below this share of |f(z)|, a difference may be one of rounding
  Numbers residual;  // relative; 0 where |g| is, infinite where a number is not finite
  Numbers ratio;     // of |g| to what the tolerances allow: at most 1 where they are met
  Numbers rounding;  // by how much the ratio may differ from one evaluation of f to another

  Measured(const at::Tensor& z, const at::Tensor& fz, const StopRule& stop,
           TensorPool* pool = nullptr);
};

/// What every loop of a solve is made of, wherever its numbers are: f, the rows, what is known of
/// each, and the end.
class SolverLoop {
 public:
  SolverLoop(const Map& f, const at::Tensor& z0, const StopRule& stop, const Layout& layout);

 protected:
  /// f at z (R, n), as (R, n).
  at::Tensor call(const at::Tensor& z, const std::vector<int64_t>& done);
  /// The largest value among the rows that each row depends on, itself included.
  Numbers over_dependencies(Numbers value) const;
  void retire(size_t row, Reason reason, int64_t step);
  void trace(const Numbers& residual);
  /// Chooses what is returned after the last evaluation, of `z`: the last iterate of a row that is
  /// still open, unless it is far worse than its best one; the best of one that was given up. All
  /// rows are then judged at once: by the last evaluation if that was of this state, otherwise by
  /// one more.
  void conclude(const at::Tensor& z);
  Solution finish();

  bool converged(size_t row) const { return reason_[row] == uint8_t(Reason::Converged); }
  std::vector<int64_t> none_done() const { return std::vector<int64_t>(size_t(layout_.batch), 0); }

  TensorPool pool_;  // what the steps need, again and again
  Map::Series f_;
  std::vector<int64_t> shape_;
  StopRule stop_;
  Layout layout_;
  size_t rows_;
  at::Tensor start_;    // (R, n) z0, the caller's memory perhaps
  at::Tensor best_;     // (R, n) the best iterate of every row, where it stays once it is done
  Numbers merit_;       // its merit: the ratio to the tolerance, over the rows it depends on
  Numbers residual_;    // its own relative residual
  Numbers last_;        // the same at the latest evaluation, best or not
  Numbers own_;         // the latest ratio of a row by itself; infinite where it failed
  bool judged_ = true;  // the latest evaluation was of the rows that are done where they stay
  Numbers rate_;        // as in Report
  Flags active_;        // not done
  std::vector<uint8_t> reason_;
  std::vector<int64_t> steps_;
  Numbers trace_;  // residuals of every row at every step
  int64_t evaluations_ = 0;
};

}  // namespace deq
