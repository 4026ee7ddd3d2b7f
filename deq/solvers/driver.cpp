#include "deq/solvers/driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "deq/base/threads.h"
#include "deq/ops/rows.h"
#include "deq/solvers/solver_loop.h"

namespace deq {
namespace {

using at::Tensor;

class Driver : SolverLoop {
 public:
  using SolverLoop::SolverLoop;

  Solution run(const Propose& propose) {
    resting_.assign(rows_, 0);
    const std::function<Tensor(const Tensor&)> evaluate = [this](const Tensor& z) {
      return call(held(z), done());
    };
    const std::function<Tensor()> active = [this] {
      return tensor_of(active_, at::kBool).to(best_.device());
    };
    Tensor z = best_, fz;
    int64_t step = 0;
    while (step < stop_.max_steps && any(active_)) {
      ++step;
      if (!fz.defined()) fz = call(z, done());
      const Tensor g = measure(z, fz, step);
      if (step == stop_.max_steps || !any(active_)) break;
      const Proposal next = propose({z, fz, g, resting_, active, evaluate, pool_});
      for (size_t r = 0; r < rows_; ++r) resting_[r] = converged(r);
      z = held(next.z);
      fz = next.fz;
    }
    verify(z, step);
    return finish();
  }

 private:
  /// z, with the rows that are done where they are.
  Tensor held(const Tensor& z) {
    return all(active_) ? z : ops::row_where(active_, z, best_, &pool_);
  }

  bool converged(size_t row) const {
    return !active_[row] && reason_[row] == uint8_t(Reason::Converged);
  }

  /// The positions at the beginning of each sample (the end, in Order::Backward) that have
  /// converged: they stay where they were when they were last evaluated, and so do those that they
  /// depend on. Rows that were given up may stem from an earlier step.
  std::vector<int64_t> done() const {
    std::vector<int64_t> counts(size_t(layout_.batch), 0);
    const size_t T = layout_.by_position() ? size_t(layout_.positions) : 1;
    const bool forward = layout_.order == Order::Forward;
    for (size_t b = 0; b < counts.size(); ++b) {
      size_t k = 0;
      while (k < T && converged(b * T + (forward ? k : T - 1 - k))) ++k;
      counts[b] = layout_.by_position() ? int64_t(k) : int64_t(k) * layout_.positions;
    }
    return counts;
  }

  /// Updates residuals, reasons and best iterates from one evaluation; returns g = f(z) - z.
  Tensor measure(const Tensor& z, const Tensor& fz, int64_t step) {
    const Measured now(z, fz, stop_, &pool_);
    last_ = now.residual;
    Flags finite(rows_);
    for (size_t r = 0; r < rows_; ++r)
      finite[r] = std::isfinite(now.g_norm[r]) && std::isfinite(now.f_norm[r]);
    if (step == 1) {
      // With |f(z0)|, and over what a row depends on: a row that rests at first may well move
      // later.
      Numbers first(rows_);
      for (size_t r = 0; r < rows_; ++r)
        first[r] = finite[r] ? std::max(now.g_norm[r], now.f_norm[r]) : 0;
      scale_ = over_dependencies(std::move(first));
    }
    // A row that is done has a fixed ratio of its own; the others are judged by this evaluation.
    const Flags was_active = active_;
    Flags broken(rows_), diverged(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r]) own_[r] = now.ratio[r];
      broken[r] = !finite[r];
      diverged[r] = now.g_norm[r] > kDivergence * (scale_[r] + kTiny);
    }
    fail(broken, Reason::NonFinite, step);
    fail(diverged, Reason::Diverged, step);
    const Numbers merit = over_dependencies(own_);
    keep_best(z, merit, now.residual, step);
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r] && merit[r] <= 1) retire(r, Reason::Converged, step);
    }
    for (size_t r = 0; r < rows_; ++r)
      trace_.push_back(was_active[r] ? now.residual[r] : residual_[r]);
    return all(finite) ? now.g : ops::row_where(finite, now.g, at::zeros_like(now.g));
  }

  /// Gives up the rows, and with them those that depend on them and could never converge.
  void fail(const Flags& rows, Reason reason, int64_t step) {
    Numbers failed(rows_);
    bool some = false;
    for (size_t r = 0; r < rows_; ++r) {
      if (!rows[r] || !active_[r]) continue;
      own_[r] = kInfinity;
      failed[r] = 1;
      some = true;
    }
    if (!some) return;
    const Numbers lost = over_dependencies(std::move(failed));
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r] && lost[r] > 0) retire(r, reason, step);
    }
  }

  void keep_best(const Tensor& z, const Numbers& merit, const Numbers& residual, int64_t step) {
    Flags better(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      // The first evaluation always counts: without it a row would have no residual of its own.
      better[r] = active_[r] && (step == 1 || merit[r] < merit_[r]);
      if (!better[r]) continue;
      merit_[r] = merit[r];
      residual_[r] = residual[r];
    }
    if (all(better)) {
      best_ = z;
    } else if (any(better)) {
      best_ = ops::row_where(better, z, best_, &pool_);
    }
  }

  Numbers scale_;  // what |f(z) - z| is compared with to see that it diverges
  Flags resting_;  // as in Iterate
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
