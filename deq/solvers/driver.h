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
  const at::Tensor& fz;
  const at::Tensor& g;  ///< f(z) - z; zero in rows that are not finite
  /// Of each row, whether it had converged before this evaluation: its z, f(z) and g are those of
  /// the step before.
  const std::vector<char>& resting;
  /// (R) bool, rows that are not done; the others stay, whatever is proposed
  const std::function<at::Tensor()>& active;
  /// f at another point, at which the rows that are done are held; counted (for a line search)
  const std::function<at::Tensor(const at::Tensor&)>& evaluate;
  /// of this solve
  TensorPool& pool;
};

struct Proposal {
  at::Tensor z;   ///< (R, n)
  at::Tensor fz;  ///< the latest `evaluate`'s, if that was at z; undefined otherwise
};

/// One method's step and memory: where to go next from an iterate.
using Propose = std::function<Proposal(const Iterate&)>;

/// Drives `propose` from z0 until every row is done. Rows that are done keep their state; a row
/// that turns non-finite or diverges keeps its best one and does not touch the others. No tape is
/// recorded. A user's own method comes in here; the listed ones through solve().
Solution iterate(const Map& f, const at::Tensor& z0, const Propose& propose, const StopRule& stop,
                 const Layout& layout);

}  // namespace deq
