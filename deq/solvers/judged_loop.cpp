#include "deq/solvers/judged_loop.h"

#include <ATen/ATen.h>

#include <cmath>
#include <functional>

#include "deq/ops/rows.h"

namespace deq {

using at::Tensor;

JudgedLoop::JudgedLoop(const Map& f, const Tensor& z0, const StopRule& stop, const Layout& layout)
    : SolverLoop(f, z0, stop, layout), step_(rows_, 0), steps_back_(rows_, 0) {
  for (Flags* flags : {&resting_, &anew_, &back_}) flags->assign(rows_, 0);
  scale_.assign(rows_, 0);
}

void JudgedLoop::begin_row(size_t row) {
  step_[row] = 0;
  steps_back_[row] = 0;
  merit_[row] = residual_[row] = own_[row] = kInfinity;
  reason_[row] = uint8_t(Reason::MaxSteps);
  active_[row] = anew_[row] = 1;
}

Tensor JudgedLoop::held(const Tensor& z) {
  return all(active_) ? z : ops::row_where(active_, z, best_, &pool_);
}

Proposal JudgedLoop::next(const Propose& propose, const Tensor& z, const Tensor& fz,
                          const Tensor& g) {
  const std::function<Tensor(const Tensor&)> evaluate = [this](const Tensor& at) {
    return call(held(at), done());
  };
  const std::function<Tensor()> active = [this] {
    return tensor_of(active_, at::kBool).to(best_.device());
  };
  const Proposal found = propose({z, fz, g, resting_, anew_, active, evaluate, pool_});
  anew_ = back_;
  if (any(back_)) return {held(put_back(found.z)), {}};
  return {held(found.z), found.fz};
}

/// z, but damped steps from the last finite iterates, shorter each time, where f was not finite.
Tensor JudgedLoop::put_back(const Tensor& z) {
  Numbers lengths(rows_);
  for (size_t r = 0; r < rows_; ++r) lengths[r] = std::ldexp(1.0, -int(steps_back_[r]));
  const Tensor length = tensor_of(lengths, at::kDouble).to(finite_z_.options()).unsqueeze(1);
  return ops::row_where(back_, finite_z_ + length * finite_g_, z, &pool_);
}

Measured JudgedLoop::measure(const Tensor& z, Tensor& fz, bool at_the_end) {
  Measured now(z, fz, stop_, &pool_);
  last_ = now.residual;
  Flags finite(rows_);
  bool some_begin = false, some_moved = false;
  for (size_t r = 0; r < rows_; ++r) {
    finite[r] = std::isfinite(now.g_norm[r]) && std::isfinite(now.f_norm[r]);
    ++step_[r];
    some_begin = some_begin || step_[r] == 1;
  }
  if (some_begin) begin_scales(now, finite);
  for (size_t r = 0; r < rows_; ++r) {
    if (active_[r] || converged(r)) own_[r] = finite[r] ? now.ratio[r] : kInfinity;
  }
  wake(now, at_the_end);
  judged_ = true;
  fail(finite, now.g_norm);
  const Numbers merit = over_dependencies(own_);
  keep_best(z, merit);
  Flags others(rows_, 1);  // than those that stop here
  for (size_t r = 0; r < rows_; ++r) {
    if (!active_[r]) continue;
    others[r] = step_[r] < stop_.max_steps && !(merit[r] <= 1);
    some_moved = some_moved || (!others[r] && step_[r] > 1);
    if (merit[r] <= 1) retire(r, Reason::Converged, step_[r]);
  }
  if (some_moved && with_rates_) find_rates(z, now, others);
  if (!any(active_)) wake(now, true);
  keep_finite(z, fz, finite, now);
  return now;
}

/// With |f(z0)|, over what a row depends on, and not below the size of a usual state: a row that
/// rests at first, or nearly, may well move later.
void JudgedLoop::begin_scales(const Measured& now, const Flags& finite) {
  Numbers first(rows_, std::sqrt(double(now.g.size(1))));
  for (size_t r = 0; r < rows_; ++r) {
    if (finite[r]) first[r] = std::max({first[r], now.g_norm[r], now.f_norm[r]});
  }
  first = over_dependencies(std::move(first));
  for (size_t r = 0; r < rows_; ++r) {
    if (step_[r] == 1) scale_[r] = first[r];
  }
}

/// Takes up again the rows that had converged and are above their tolerance now, with those that
/// depend on them. While others move, rounding is allowed for, which must not disturb a row.
void JudgedLoop::wake(const Measured& now, bool at_the_end) {
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
void JudgedLoop::fail(const Flags& finite, const Numbers& g_norm) {
  Flags broken(rows_), diverged(rows_);
  for (size_t r = 0; r < rows_; ++r) {
    // A row that is open after the first evaluation was finite there. There must be a next one.
    back_[r] = active_[r] && !finite[r] && step_[r] > 1 && step_[r] < stop_.max_steps &&
               steps_back_[r] < kStepsBack;
    steps_back_[r] += back_[r];
    broken[r] = !finite[r] && !back_[r];
    diverged[r] = finite[r] && g_norm[r] > kDivergence * scale_[r];
  }
  give_up(broken, Reason::NonFinite);
  give_up(diverged, Reason::Diverged);
  for (size_t r = 0; r < rows_; ++r) back_[r] = back_[r] && active_[r];
}

/// Gives up the rows, and with them those that depend on them and could never converge.
void JudgedLoop::give_up(const Flags& rows, Reason reason) {
  Numbers failed(rows_);
  bool some = false, first = true;
  for (size_t r = 0; r < rows_; ++r) {
    if (!rows[r] || !active_[r]) continue;
    own_[r] = kInfinity;
    failed[r] = 1;
    some = true;
    first = first && step_[r] == 1;
  }
  if (!some) return;
  judged_ = first;  // their best iterates are of earlier steps
  const Numbers lost = over_dependencies(std::move(failed));
  for (size_t r = 0; r < rows_; ++r) {
    if (active_[r] && lost[r] > 0) retire(r, reason, step_[r]);
  }
}

void JudgedLoop::keep_best(const Tensor& z, const Numbers& merit) {
  Flags better(rows_);
  for (size_t r = 0; r < rows_; ++r) {
    // The first evaluation always counts: without it a row would have no residual of its own.
    better[r] = active_[r] && (step_[r] == 1 || merit[r] < merit_[r]);
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
void JudgedLoop::find_rates(const Tensor& z, const Measured& now, const Flags& others) {
  const Tensor moved = ops::row_distances(z, finite_z_, others, &pool_).to(at::kCPU),
               changed = ops::row_distances(now.g, finite_g_, others, &pool_).to(at::kCPU);
  for (size_t r = 0; r < rows_; ++r) {
    if (others[r]) continue;
    const double by = moved.data_ptr<double>()[r], change = changed.data_ptr<double>()[r];
    if (by > now.round_off * now.f_norm[r]) rate_[r] = std::max(0.0, 1 - change / by);
  }
}

/// What rows are put back to; nothing but finite numbers goes on to the method.
void JudgedLoop::keep_finite(const Tensor& z, Tensor& fz, const Flags& finite, Measured& now) {
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

}  // namespace deq
