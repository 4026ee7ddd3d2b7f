// The loop that every method shares: evaluation, stop rule, best iterate, guards, statistics.
#pragma once

#include <functional>
#include <vector>

#include "deq/base/tensor_pool.h"
#include "deq/solvers/layout.h"
#include "deq/solvers/report.h"

namespace deq {

/// What a method sees of a step; the states are (R, n) rows.
struct Iterate {
  const at::Tensor& z;
  const at::Tensor& fz;  ///< zero in open rows where it is not finite
  const at::Tensor& g;   ///< f(z) - z; zero in rows that are not finite
  /// Of each row, whether it has converged before this evaluation: its z is that of the step
  /// before, and so are f(z) and g, as far as rows depend on each other as the Layout says.
  const std::vector<char>& resting;
  /// Of each row, whether it begins anew: it was taken up again after it had rested, or put back to
  /// where f was finite. What a method remembers of it tells nothing of where it is now.
  const std::vector<char>& anew;
  /// (R) bool, rows that are not done; the others stay, whatever is proposed
  const std::function<at::Tensor()>& active;
  /// f at another point, at which the rows that are done are held; counted (for a line search)
  const std::function<at::Tensor(const at::Tensor&)>& evaluate;
  /// of this solve
  TensorPool& pool;
};

/// Where a method goes next.
struct Proposal {
  at::Tensor z;   ///< (R, n)
  at::Tensor fz;  ///< the latest `evaluate`'s, if that was at z; undefined otherwise
};

inline constexpr int64_t kStepsBack = 8;

/// One method's step and memory: where to go next from an iterate.
using Propose = std::function<Proposal(const Iterate&)>;

/// Drives `propose` from z0 until every row is done. Rows that are done keep their state. Those
/// that have converged are judged again by every evaluation, and taken up again where it finds
/// them above their tolerance after all, which only happens if rows depend on each other more than
/// the Layout says; so what is called converged met its tolerance in one evaluation of the very
/// state that is returned. A row at which f is not finite is put back to its last finite iterate
/// and makes damped steps from there, kStepsBack times in a solve at most; a row that fails or
/// diverges keeps its best iterate and does not touch the others. Rows that are open when the
/// steps run out keep their last iterate, unless it is three times worse than their best. No
/// tape is recorded. A user's own method comes in here; the listed ones through solve().
Solution iterate(const Map& f, const at::Tensor& z0, const Propose& propose, const StopRule& stop,
                 const Layout& layout);

}  // namespace deq
