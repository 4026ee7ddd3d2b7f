#include "deq/solvers/broyden.h"

#include <ATen/ATen.h>

#include "deq/ops/rows.h"
#include "deq/solvers/small.h"

namespace deq {
namespace {

using at::Tensor;

constexpr double kArmijo = 1e-4;  // accept |g(z + s p)|^2 <= (1 - 2 kArmijo s) |g(z)|^2
constexpr int64_t kHalvings = 5;

/// The same numbers whatever rows there are.
Tensor squared_norm(const Tensor& rows) {
  const Tensor numbers = rows.to(at::kDouble);
  return ops::row_dots({numbers}, numbers).squeeze(1);
}

class BroydenMethod {
 public:
  BroydenMethod(const Broyden& options, const Layout& layout) : options_(options) {
    // More pairs than twice the numbers in a row tell nothing new.
    options_.memory = std::min(options_.memory, std::max<int64_t>(4, 2 * layout.width()));
  }

  Proposal propose(const Iterate& at) {
    if (g_.defined()) remember(at);
    for (size_t r = 0; r < at.anew.size(); ++r) {
      if (at.anew[r]) forget(int64_t(r));
    }
    g_ = at.g;
    // -H g = g - (S + Y) (S^T Y + L)^{-1} S^T g
    const Tensor weights = held() ? small::solve_or_zero(slots(), along_, oldest(), &at.pool).neg_()
                                  : at::empty({at.g.size(0), 0}, along_options(at.g));
    if (!options_.line_search) {
      const ops::RowStep step =
          ops::row_step(at.z, at.g, weights.to(at.g.device()), sums_, at.resting, &at.pool);
      step_ = step.step;
      across_ = step.dots.to(at::kCPU);
      return {step.next, {}};
    }
    const Proposal found =
        search(at, ops::row_mix(weights.to(at.g.device()), sums_, at.g, at.resting, &at.pool));
    step_ = found.z - at.z;
    across_ = ops::row_dots(sums_, step_, at.resting, &at.pool).to(at::kCPU);
    return found;
  }

 private:
  int64_t held() const { return int64_t(steps_.size()); }
  static at::TensorOptions along_options(const Tensor& g) {
    return g.options().device(at::kCPU).dtype(at::kDouble);
  }
  /// The slot of the oldest pair; the others follow it, in a circle.
  int64_t oldest() const { return held() < options_.memory ? 0 : count_ % options_.memory; }
  Tensor slots() const { return matrix_.narrow(1, 0, held()).narrow(2, 0, held()); }

  /// Puts the pair of the last step into the oldest slot of a full memory, or a new one. Of M_ij =
  /// s_i^T y_j + [i after j] s_i^T s_j, whatever the order of slots, that is the newest pair's row
  /// s^T (s_j + y_j), known from the step itself, and its column s_i^T y = s_i^T g - s_i^T
  /// g_before.
  void remember(const Iterate& at) {
    const int64_t R = at.g.size(0), slot = count_++ % options_.memory;
    Tensor sum = at.pool.empty_like(at.g);
    at::sub_out(sum, at.g, g_);  // y, to which s comes
    const auto on_host = [](const Tensor& t) { return t.to(at::kCPU).contiguous(); };
    const Tensor own = on_host(ops::row_dots({step_, sum}, step_, at.resting, &at.pool));
    sum.add_(step_);
    const int64_t was = held(), dropped = was < options_.memory ? 0 : 1;
    for (auto* list : {&steps_, &sums_}) list->erase(list->begin(), list->begin() + dropped);
    steps_.push_back(step_);
    sums_.push_back(sum);
    const Tensor along = on_host(ops::row_dots(steps_, at.g, at.resting, &at.pool));
    matrix_ = small::with_room(matrix_, R, held(), options_.memory);
    const int64_t m = matrix_.size(1), first = oldest();
    double* M = matrix_.data_ptr<double>();
    for (int64_t r = 0; r < R; ++r, M += m * m) {
      const double *now = along.data_ptr<double>() + r * held(),
                   *o = own.data_ptr<double>() + 2 * r;
      for (int64_t i = 0; i + 1 < held(); ++i) {
        const int64_t other = (first + i) % options_.memory, before = r * was + i + dropped;
        M[slot * m + other] = across_.data_ptr<double>()[before];
        M[other * m + slot] = now[i] - along_.data_ptr<double>()[before];
      }
      // Where a row did not move, its pair is no pair: the one on the diagonal takes it out.
      M[slot * m + slot] = o[0] > 0 ? o[1] : 1;
    }
    along_ = along;
  }

  /// Every pair of the row becomes one in which it did not move, as in remember().
  void forget(int64_t row) {
    if (!held()) return;
    for (const auto* list : {&steps_, &sums_}) {
      for (const Tensor& t : *list) t[row].zero_();
    }
    matrix_[row].copy_(at::eye(matrix_.size(1), matrix_.options()));
    along_[row].zero_();
  }

  Proposal search(const Iterate& at, const Tensor& direction) const {
    const Tensor start = squared_norm(at.g), done = at.active().logical_not();
    Tensor scale = at::ones_like(start);
    Tensor z = at.z + direction, fz = at.evaluate(z);
    for (int64_t halving = 0; halving < kHalvings; ++halving) {
      const Tensor accepted =
          (squared_norm(fz - z) <= (1 - 2 * kArmijo * scale) * start).logical_or_(done);
      if (accepted.all().item<bool>()) break;
      scale = at::where(accepted, scale, 0.5 * scale);
      z = at.z + scale.unsqueeze(1).to(direction.scalar_type()) * direction;
      fz = at.evaluate(z);
    }
    return {z, fz};
  }

  Broyden options_;
  int64_t count_ = 0;
  Tensor g_, step_;            // of the iterate before, and the step from it
  std::vector<Tensor> steps_;  // s_i, each (R, n), the oldest first: sums run in the order of time
  std::vector<Tensor> sums_;   // s_i + y_i
  Tensor matrix_;          // (R, m, m) double, S^T Y + strictly_lower(S^T S) in the slots' order,
                           // m slots in use or not
  Tensor along_, across_;  // (R, held) by time: s_i^T g_, and (s_i + y_i)^T step_
};

}  // namespace

Propose Broyden::start(const Layout& layout) const {
  DEQ_CHECK(layout.scope != Scope::Causal,
            "Broyden.scope = causal; known for broyden: sample, position, whole");
  auto method = std::make_shared<BroydenMethod>(*this, layout);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
