#include "deq/solvers/rolling.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <cstring>

#include "deq/ops/rows.h"

namespace deq {

using at::Tensor;

namespace {

void copy_row(const Tensor& from, int64_t i, const Tensor& to, int64_t j) {
  const size_t bytes = size_t(from.size(1)) * from.element_size();
  std::memcpy(static_cast<char*>(to.data_ptr()) + size_t(j) * bytes,
              static_cast<const char*>(from.data_ptr()) + size_t(i) * bytes, bytes);
}

Tensor as_states(const Tensor& like) {
  DEQ_CHECK(like.defined() && like.dim() == 2 && like.is_cpu() && like.is_floating_point(),
            "RollingSolve: `like` is {}; expected (rows, n) of floating-point numbers on the CPU",
            like.defined() ? fmt::format("[{}]", fmt::join(like.sizes(), ", ")) : "undefined");
  return at::zeros({like.size(0), 1, like.size(1)}, like.options().requires_grad(false));
}

}  // namespace

RollingSolve::RollingSolve(const Map::Series& f, const Tensor& like, const Solver& solver,
                           const StopRule& stop)
    : RollingSolve(f, as_states(like),
                   scope_of(solver) == Scope::Whole ? with_scope(solver, Scope::Sample) : solver,
                   stop, Layout()) {}

RollingSolve::RollingSolve(const Map::Series& f, const Tensor& z, const Solver& solver,
                           const StopRule& stop, const Layout&)
    : JudgedLoop(Map([f](const Tensor& at) { return f(at, {}); },
                     [this, f]() -> Map::Series {
                       return [this, f](const Tensor& at, const std::vector<int64_t>& done) {
                         for (size_t r = 0; r < rows_; ++r) counts_[r] += done[r] == 0;
                         return f(at, done);
                       };
                     }),
                 z, stop, Layout(z, scope_of(solver), Order::Forward)),
      propose_(solver->start(layout_)),
      z_(best_),
      starts_(best_.clone()),
      zeros_(best_.clone()),
      used_(rows_, 0),
      begun_(rows_, 0),
      counts_(rows_, 0) {
  validate(stop, "StopRule");
  active_.assign(rows_, 0);
  with_rates_ = false;
}

std::vector<int64_t> RollingSolve::done() const {
  std::vector<int64_t> counts(rows_);
  for (size_t r = 0; r < rows_; ++r) counts[r] = active_[r] ? 0 : 1;
  return counts;
}

void RollingSolve::begin(int64_t row, const Tensor& z0) {
  const auto r = size_t(row);
  DEQ_CHECK(row >= 0 && r < rows_ && !used_[r],
            "RollingSolve: row {} begins; expected one of {} that is not in use", row, rows_);
  DEQ_CHECK(z0.numel() == starts_.size(1) && z0.scalar_type() == starts_.scalar_type(),
            "RollingSolve: a state [{}] of {}; expected {} numbers of {}",
            fmt::join(z0.sizes(), ", "), c10::toString(z0.scalar_type()), starts_.size(1),
            c10::toString(starts_.scalar_type()));
  copy_row(z0.detach().reshape({1, -1}).contiguous(), 0, starts_, row);
  begin_row(r);
  used_[r] = begun_[r] = 1;
  counts_[r] = 0;
}

/// Puts the rows that have begun in their places.
void RollingSolve::take_up() {
  if (!any(begun_)) return;
  z_ = ops::row_where(begun_, starts_, z_, &pool_);
  best_ = ops::row_where(begun_, starts_, best_, &pool_);
  if (fz_.defined()) {
    std::vector<int64_t> known(rows_);
    for (size_t r = 0; r < rows_; ++r) known[r] = begun_[r] ? 0 : 1;
    fz_ = ops::row_where(begun_, call(z_, known), fz_, &pool_);
  }
  begun_.assign(rows_, 0);
}

RollingSolve::Round RollingSolve::step() {
  DEQ_CHECK(in_use(), "RollingSolve: no row is in use; expected one that has begun");
  c10::AutoGradMode no_tape(false);
  take_up();
  Tensor fz = fz_.defined() ? fz_ : call(z_, done());
  const Measured now = measure(z_, fz, false);
  Round round = ended(z_);
  if (!any(active_)) {
    fz_ = Tensor();
    return round;
  }
  Flags known(rows_);  // what is not finite must not meet a coefficient of 0
  for (size_t r = 0; r < rows_; ++r)
    known[r] = std::isfinite(now.g_norm[r]) && std::isfinite(now.f_norm[r]);
  if (!all(known)) fz = ops::row_where(known, fz, zeros_, &pool_);
  for (size_t r = 0; r < rows_; ++r) resting_[r] = !active_[r];
  Proposal found = next(propose_, z_, fz, now.g);
  z_ = std::move(found.z);
  fz_ = std::move(found.fz);
  return round;
}

/// The rows that an evaluation of z has ended, as SolverLoop::conclude() has it for a single row.
RollingSolve::Round RollingSolve::ended(const Tensor& z) {
  Round round;
  std::vector<const Tensor*> from;
  for (size_t r = 0; r < rows_; ++r) {
    if (!used_[r] || (active_[r] && step_[r] < stop_.max_steps)) continue;
    const bool latest = converged(r) || (active_[r] && own_[r] <= kFarWorse * merit_[r]);
    round.ended.push_back(
        {int64_t(r), Reason(reason_[r]), latest ? last_[r] : residual_[r], counts_[r]});
    from.push_back(latest ? &z : &best_);
    used_[r] = active_[r] = 0;
    reason_[r] = uint8_t(Reason::MaxSteps);
  }
  if (from.empty()) return round;
  round.states = at::empty({int64_t(from.size()), z.size(1)}, z.options());
  for (size_t i = 0; i < from.size(); ++i)
    copy_row(*from[i], round.ended[i].row, round.states, int64_t(i));
  return round;
}

}  // namespace deq
