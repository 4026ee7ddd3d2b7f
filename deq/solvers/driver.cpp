#include "deq/solvers/driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <vector>

#include "deq/base/threads.h"
#include "deq/solvers/judged_loop.h"

namespace deq {
namespace {

using at::Tensor;

class Driver : JudgedLoop {
 public:
  using JudgedLoop::JudgedLoop;

  Solution run(const Propose& propose) {
    Tensor z = best_, fz;
    int64_t step = 0;
    while (step < stop_.max_steps && (any(active_) || (!judged_ && rows_ > 1))) {
      ++step;
      if (!fz.defined()) fz = call(z, done());
      const Measured now = measure(z, fz, step == stop_.max_steps);
      trace(last_);
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
    conclude(z);
    return finish();
  }

 private:
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

}  // namespace

Solution iterate(const Map& f, const at::Tensor& z0, const Propose& propose, const StopRule& stop,
                 const Layout& layout) {
  validate(stop, "StopRule");
  DEQ_CHECK(z0.defined() && z0.is_floating_point(),
            "solve: z0 is {}; expected a floating-point tensor",
            z0.defined() ? c10::toString(z0.scalar_type()) : "undefined");
  c10::AutoGradMode no_tape(false);
  const FreeThreads threads;
  return Driver(f, z0, stop, layout).run(propose);
}

}  // namespace deq
