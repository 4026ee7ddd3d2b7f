#include "deq/solvers/driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "deq/ops/rows.h"
#include "deq/solvers/solver_loop.h"

namespace deq {
namespace {

using at::Tensor;

class Driver : SolverLoop {
 public:
  using SolverLoop::SolverLoop;

  Solution run(const Propose& propose) {
    for (Flags* flags : {&resting_, &anew_, &back_}) flags->assign(rows_, 0);
    steps_back_.assign(rows_, 0);
    const std::function<Tensor(const Tensor&)> evaluate = [this](const Tensor& z) {
      return call(held(z), done());
    };
    const std::function<Tensor()> active = [this] {
      return tensor_of(active_, at::kBool).to(best_.device());
    };
    Tensor z = best_, fz;
    int64_t step = 0;
    while (step < stop_.max_steps && (any(active_) || (!judged_ && rows_ > 1))) {
      ++step;
      if (!fz.defined()) fz = call(z, done());
      const Measured now = measure(z, fz, step);
      if (step == stop_.max_steps) break;
      if (!any(active_)) {  // perhaps once more, as it will be returned
        z = best_;
        fz = Tensor();
        continue;
      }
      const Proposal next = propose({z, fz, now.g, resting_, anew_, active, evaluate, pool_});
      for (size_t r = 0; r < rows_; ++r) resting_[r] = converged(r);
      anew_ = back_;
      z = held(any(back_) ? put_back(next.z) : next.z);
      fz = any(back_) ? Tensor() : next.fz;
    }
    conclude(z);
    return finish();
  }

 private:
  /// z, with the rows that are done where they are.
  Tensor held(const Tensor& z) {
    return all(active_) ? z : ops::row_where(active_, z, best_, &pool_);
  }

  /// z, but damped steps from the last finite iterates, shorter each time, where f was not finite.
  Tensor put_back(const Tensor& z) {
    Numbers lengths(rows_);
    for (size_t r = 0; r < rows_; ++r) lengths[r] = std::ldexp(1.0, -int(steps_back_[r]));
    const Tensor length = tensor_of(lengths, at::kDouble).to(finite_z_.options()).unsqueeze(1);
    return ops::row_where(back_, finite_z_ + length * finite_g_, z, &pool_);
  }

  /// The positions at the beginning of each sample (the end, in Order::Backward) that have
  /// converged: they stay where they were when they were last evaluated, and so do those that they
  /// depend on. Rows that were given up may stem from an earlier step.
  std::vector<int64_t> done() const {
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

  /// Updates residuals, reasons and best iterates from one evaluation.
  Measured measure(const Tensor& z, Tensor& fz, int64_t step) {
    Measured now(z, fz, stop_, &pool_);
    last_ = now.residual;
    trace(now.residual);
    Flags finite(rows_);
    for (size_t r = 0; r < rows_; ++r)
      finite[r] = std::isfinite(now.g_norm[r]) && std::isfinite(now.f_norm[r]);
    if (step == 1) {
      // With |f(z0)|, over what a row depends on, and not below the size of a usual state: a row
      // that rests at first, or nearly, may well move later.
      Numbers first(rows_, std::sqrt(double(z.size(1))));
      for (size_t r = 0; r < rows_; ++r) {
        if (finite[r]) first[r] = std::max({first[r], now.g_norm[r], now.f_norm[r]});
      }
      scale_ = over_dependencies(std::move(first));
    }
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r] || converged(r)) own_[r] = finite[r] ? now.ratio[r] : kInfinity;
    }
    wake(now, step == stop_.max_steps);
    judged_ = true;
    fail(finite, now.g_norm, step);
    const Numbers merit = over_dependencies(own_);
    keep_best(z, merit, step);
    Flags others(rows_, 1);  // than those that stop here
    for (size_t r = 0; r < rows_; ++r) {
      if (!active_[r]) continue;
      others[r] = step < stop_.max_steps && !(merit[r] <= 1);
      if (merit[r] <= 1) retire(r, Reason::Converged, step);
    }
    if (step > 1 && !all(others)) find_rates(z, now, others);
    if (!any(active_)) wake(now, true);
    keep_finite(z, fz, finite, now);
    return now;
  }

  /// Takes up again the rows that had converged and are above their tolerance now, with those that
  /// depend on them. While others move, rounding is allowed for, which must not disturb a row.
  void wake(const Measured& now, bool at_the_end) {
    Numbers above(rows_);
    for (size_t r = 0; r < rows_; ++r)
      above[r] = converged(r) && own_[r] > 1 + (at_the_end ? 0 : now.rounding[r]);
    if (std::all_of(above.begin(), above.end(), [](double a) { return a == 0; })) return;
    above = over_dependencies(std::move(above));
    const Numbers merit = over_dependencies(own_);
    for (size_t r = 0; r < rows_; ++r) {
      if (!converged(r) || above[r] == 0) continue;
      reason_[r] = uint8_t(Reason::MaxSteps);
      steps_[r] = stop_.max_steps;
      active_[r] = 1;
      merit_[r] = merit[r];
      resting_[r] = 0;
      anew_[r] = 1;
    }
  }

  /// Finds the rows that are to be put back, and gives up those that have failed.
  void fail(const Flags& finite, const Numbers& g_norm, int64_t step) {
    Flags broken(rows_), diverged(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      // A row that is open after the first evaluation was finite there. There must be a next one.
      back_[r] = active_[r] && !finite[r] && step > 1 && step < stop_.max_steps &&
                 steps_back_[r] < kStepsBack;
      steps_back_[r] += back_[r];
      broken[r] = !finite[r] && !back_[r];
      diverged[r] = finite[r] && g_norm[r] > kDivergence * scale_[r];
    }
    give_up(broken, Reason::NonFinite, step);
    give_up(diverged, Reason::Diverged, step);
    for (size_t r = 0; r < rows_; ++r) back_[r] = back_[r] && active_[r];
  }

  /// Gives up the rows, and with them those that depend on them and could never converge.
  void give_up(const Flags& rows, Reason reason, int64_t step) {
    Numbers failed(rows_);
    bool some = false;
    for (size_t r = 0; r < rows_; ++r) {
      if (!rows[r] || !active_[r]) continue;
      own_[r] = kInfinity;
      failed[r] = 1;
      some = true;
    }
    if (!some) return;
    judged_ = step == 1;  // their best iterates are of earlier steps
    const Numbers lost = over_dependencies(std::move(failed));
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r] && lost[r] > 0) retire(r, reason, step);
    }
  }

  void keep_best(const Tensor& z, const Numbers& merit, int64_t step) {
    Flags better(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      // The first evaluation always counts: without it a row would have no residual of its own.
      better[r] = active_[r] && (step == 1 || merit[r] < merit_[r]);
      if (!better[r]) continue;
      merit_[r] = merit[r];
      residual_[r] = last_[r];
    }
    if (all(better)) {
      best_ = z;
    } else if (any(better)) {
      best_ = ops::row_where(better, z, best_, &pool_);
    }
  }

  /// From what is known of the evaluation before, which is about to be forgotten.
  void find_rates(const Tensor& z, const Measured& now, const Flags& others) {
    const Tensor moved = ops::row_distances(z, finite_z_, others, &pool_).to(at::kCPU),
                 changed = ops::row_distances(now.g, finite_g_, others, &pool_).to(at::kCPU);
    for (size_t r = 0; r < rows_; ++r) {
      if (others[r]) continue;
      const double by = moved.data_ptr<double>()[r], change = changed.data_ptr<double>()[r];
      if (by > now.round_off * now.f_norm[r]) rate_[r] = std::max(0.0, 1 - change / by);
    }
  }

  /// What rows are put back to; nothing but finite numbers goes on to the method.
  void keep_finite(const Tensor& z, Tensor& fz, const Flags& finite, Measured& now) {
    if (!all(finite)) now.g = ops::row_where(finite, now.g, at::zeros_like(now.g));
    if (!any(back_)) {
      finite_z_ = z;
      finite_g_ = now.g;
      return;
    }
    finite_z_ = ops::row_where(back_, finite_z_, z, &pool_);
    finite_g_ = ops::row_where(back_, finite_g_, now.g, &pool_);
    fz = ops::row_where(back_, at::zeros_like(fz), fz);
  }

  Numbers scale_;                // what |f(z) - z| is compared with to see that it diverges
  Flags resting_, anew_;         // as in Iterate
  Flags back_;                   // rows that are put back now,
  std::vector<int> steps_back_;  // and how often they were
  Tensor finite_z_, finite_g_;   // (R, n) of each open row, the last where f was finite
};

}  // namespace

Solution iterate(const Map& f, const at::Tensor& z0, const Propose& propose, const StopRule& stop,
                 const Layout& layout) {
  validate(stop, "StopRule");
  DEQ_CHECK(z0.defined() && z0.is_floating_point(),
            "solve: z0 is {}; expected a floating-point tensor",
            z0.defined() ? c10::toString(z0.scalar_type()) : "undefined");
  c10::AutoGradMode no_tape(false);
  return Driver(f, z0, stop, layout).run(propose);
}

}  // namespace deq
