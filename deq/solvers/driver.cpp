#include "deq/solvers/driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <vector>

#include "deq/base/threads.h"
#include "deq/solvers/judged_loop.h"
#include "deq/solvers/limits.h"

namespace deq {
namespace {

using at::Tensor;

using Clock = std::chrono::steady_clock;

class Driver : JudgedLoop {
 public:
  using JudgedLoop::JudgedLoop;

  Solution run(const Propose& propose, const Watch* watch = nullptr) {
    Tensor z = best_, fz;
    int64_t step = 0;
    Clock::time_point start = Clock::now();
    size_t seen = 0;  // limits of the watch
    while (step < stop_.max_steps && (any(active_) || (!judged_ && rows_ > 1))) {
      ++step;
      if (!fz.defined()) fz = call(z, done());
      if (watch && step == watch->limits[seen] && step < stop_.max_steps) {
        const Clock::time_point before = Clock::now();
        watch->see(ended_here(z, fz, step, start));
        start += Clock::now() - before;
        ++seen;
      }
      const Measured now = measure(z, fz, step == stop_.max_steps);
      if (!watch) trace(last_);
      if (step == stop_.max_steps) break;
      if (!any(active_)) {  // perhaps once more, as it will be returned
        z = best_;
        fz = Tensor();
        continue;
      }
      Proposal found = next(propose, z, fz, now.g);
      for (size_t r = 0; r < rows_; ++r) resting_[r] = converged(r);
      z = std::move(found.z);
      fz = std::move(found.fz);
    }
    const Tensor best = best_;
    conclude(z);
    const Solution solution = finish();
    if (!watch) return solution;
    AtLimit last = at_limit(0, solution, best, step, start);
    for (; seen < watch->limits.size(); ++seen) {  // it is that of all limits that are left
      last.max_steps = last.solution.report.max_steps = watch->limits[seen];
      watch->see(last);
    }
    return solution;
  }

 private:
  /// What comes of the loop if this evaluation, not yet judged, is its last. Nothing changes here:
  /// a copy of all that is known is judged and concluded. Where that evaluates f, what is done is
  /// where it was, as our next evaluation supposes.
  AtLimit ended_here(const Tensor& z, Tensor fz, int64_t step, Clock::time_point start) const {
    Driver end = *this;
    end.stop_.max_steps = step;
    for (size_t r = 0; r < rows_; ++r) {
      if (end.steps_[r] == stop_.max_steps) end.steps_[r] = step;
    }
    end.measure(z, fz, true);
    const Tensor best = end.best_;
    end.conclude(z);
    return end.at_limit(step, end.finish(), best, step, start);
  }

  AtLimit at_limit(int64_t limit, Solution solution, const Tensor& best, int64_t step,
                   Clock::time_point start) const {
    solution.report.max_steps = limit;
    return {.max_steps = limit,
            .solution = std::move(solution),
            .best = best.view(shape_),
            .longest = step,
            .seconds = std::chrono::duration<double>(Clock::now() - start).count()};
  }

  /// The positions at the beginning of each sample (the end, in Order::Backward) that have
  /// converged: they stay where they were when they were last evaluated, and so do those that they
  /// depend on. Rows that were given up may stem from an earlier step.
  std::vector<int64_t> done() const override {
    std::vector<int64_t> counts = none_done();
    if (layout_.scope == Scope::Whole) return counts;
    const size_t T = layout_.by_position() ? size_t(layout_.positions) : 1;
    const bool forward = layout_.order == Order::Forward;
    for (size_t b = 0; b < counts.size(); ++b) {
      size_t k = 0;
      while (k < T && converged(b * T + (forward ? k : T - 1 - k))) ++k;
      counts[b] = layout_.by_position() ? int64_t(k) : int64_t(k) * layout_.positions;
    }
    return counts;
  }
};

void check(const at::Tensor& z0, const StopRule& stop) {
  validate(stop, "StopRule");
  DEQ_CHECK(z0.defined() && z0.is_floating_point(),
            "solve: z0 is {}; expected a floating-point tensor",
            z0.defined() ? c10::toString(z0.scalar_type()) : "undefined");
}

}  // namespace

Solution iterate(const Map& f, const at::Tensor& z0, const Propose& propose, const StopRule& stop,
                 const Layout& layout) {
  check(z0, stop);
  c10::AutoGradMode no_tape(false);
  const FreeThreads threads;
  return Driver(f, z0, stop, layout).run(propose);
}

void iterate_watched(const Map& f, const at::Tensor& z0, const Propose& propose,
                     const StopRule& stop, const Layout& layout, const Watch& watch) {
  check(z0, stop);
  c10::AutoGradMode no_tape(false);
  const FreeThreads threads;
  Driver(f, z0, stop, layout).run(propose, &watch);
}

}  // namespace deq
