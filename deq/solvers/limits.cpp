#include "deq/solvers/limits.h"

#include <algorithm>
#include <chrono>

#include "deq/solvers/judged_loop.h"
#include "deq/solvers/start.h"

namespace deq {

void solve_at_limits(const Map& f, const at::Tensor& z0, const Solver& solver, const StopRule& stop,
                     std::vector<int64_t> limits, const std::function<void(const AtLimit&)>& see) {
  check_start(f, z0);
  DEQ_CHECK(!limits.empty(), "no step limits; expected at least one");
  std::sort(limits.begin(), limits.end());
  limits.erase(std::unique(limits.begin(), limits.end()), limits.end());
  DEQ_CHECK(limits.front() >= 1, "a limit of {} steps; expected >= 1", limits.front());
  StopRule last = stop;
  last.max_steps = limits.back();
  const Layout layout(z0, scope_of(solver), Order::Forward);
  const Propose propose = solver->start(f, layout);
  const auto start = std::chrono::steady_clock::now();
  const Beginning from = solver->begin(f, z0, last, layout);
  const std::chrono::duration<double> began = std::chrono::steady_clock::now() - start;
  const auto complete = [&](AtLimit at) {
    at.solution.report.evaluations += from.evaluations;
    at.beginning = from.evaluations;
    at.seconds += began.count();
    count_bad_starts(at.solution.report, z0, layout);
    see(at);
  };
  iterate_watched(f, from.z, propose, last, layout, {limits, complete});
}

}  // namespace deq
