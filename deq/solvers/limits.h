// One solve seen at several step limits: what more steps at test time give.
#pragma once

#include <functional>
#include <vector>

#include "deq/solvers/solvers.h"

namespace deq {

/// What a solve of at most so many steps gives.
struct AtLimit {
  int64_t max_steps = 0;
  Solution solution;      ///< as `solve` returns it; its report has no trace
  at::Tensor best;        ///< the iterate of smallest residual of every row, shape of z0
  int64_t beginning = 0;  ///< evaluations that the method took before its first step
  int64_t longest = 0;    ///< steps of the loop: those of the slowest row
  double seconds = 0;     ///< of that solve alone
};

/// Solves once, with the largest of `limits` as its limit, and calls `see` for each of them, in
/// rising order, with what `solve` with that limit returns: to the bit, where f is the same at each
/// call. `stop.max_steps` is not read. It takes the evaluations of the largest limit, and one more
/// at each smaller one at which some rows are not where they were judged last. `see` may keep what
/// it is given and may evaluate f; its time counts for no limit. On a GPU the loop is that of the
/// host, whose numbers are not quite those of `solve` there. Throws deq::Error for no limits, and
/// for one below 1; otherwise as `solve`.
void solve_at_limits(const Map& f, const at::Tensor& z0, const Solver& solver, const StopRule& stop,
                     std::vector<int64_t> limits, const std::function<void(const AtLimit&)>& see);

}  // namespace deq
