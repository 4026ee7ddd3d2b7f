#include "deq/solvers/broyden.h"

#include <ATen/ATen.h>

#include "deq/ops/rows.h"
#include "deq/solvers/small.h"

namespace deq {
namespace {

using at::Tensor;

constexpr double kArmijo = 1e-4;  // accept |g(z + s p)|^2 <= (1 - 2 kArmijo s) |g(z)|^2
constexpr int64_t kHalvings = 5;

Tensor squared_norm(const Tensor& rows) { return rows.to(at::kDouble).square().sum(1); }

class BroydenMethod {
 public:
  explicit BroydenMethod(const Broyden& options) : options_(options) {}

  Proposal propose(const Iterate& at) {
    if (z_.defined()) remember(at.z - z_, at.g - g_);
    z_ = at.z;
    g_ = at.g;
    const Tensor direction = held() ? newton_direction(at.g) : at.g;
    if (!options_.line_search) return {at.z + direction, {}};
    return search(at, direction);
  }

 private:
  int64_t held() const { return int64_t(steps_.size()); }

  /// -H g = g - (S + Y) (S^T Y + L)^{-1} S^T g, (R, n); g itself where the small problem is
  /// singular.
  Tensor newton_direction(const Tensor& g) const {
    const Tensor right = ops::row_dots(steps_, g);  // (R, m)
    const Tensor small = matrix_.narrow(1, 0, held()).narrow(2, 0, held());
    return ops::row_mix(-small::solve_or_zero(small, right), sums_, g);
  }

  /// Appends the pair (s, y), dropping the oldest of a full memory; the lists stay in the order of
  /// time.
  void remember(const Tensor& s, const Tensor& y) {
    const int64_t m = options_.memory;
    if (!matrix_.defined()) {
      matrix_ = at::zeros({s.size(0), m, m}, s.options().dtype(at::kDouble));
    }
    if (held() == m) {
      steps_.erase(steps_.begin());
      sums_.erase(sums_.begin());
      matrix_.narrow(1, 0, m - 1)
          .narrow(2, 0, m - 1)
          .copy_(matrix_.narrow(1, 1, m - 1).narrow(2, 1, m - 1).clone());
    }
    steps_.push_back(s);
    sums_.push_back(s + y);
    // M_ij = s_i^T y_j + [i > j] s_i^T s_j: column `last` from s_i^T y, row `last` from s^T (s_j +
    // y_j).
    const int64_t last = held() - 1;
    matrix_.select(1, last).narrow(1, 0, last + 1).copy_(ops::row_dots(sums_, s));
    matrix_.select(2, last).narrow(1, 0, last + 1).copy_(ops::row_dots(steps_, y));
    // Where a row did not move, its pair is no pair: the one on the diagonal takes it out.
    const Tensor still = s.ne(0).any(1).logical_not();
    matrix_.select(1, last).select(1, last).masked_fill_(still, 1);
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
  Tensor z_, g_;               // the iterate before
  std::vector<Tensor> steps_;  // s_i, oldest first, each (R, n)
  std::vector<Tensor> sums_;   // s_i + y_i
  Tensor matrix_;              // (R, m, m) double: S^T Y + strictly_lower(S^T S)
};

}  // namespace

Propose Broyden::start(const Layout& layout) const {
  DEQ_CHECK(layout.scope != Scope::Causal,
            "Broyden.scope = causal; known for broyden: sample, position");
  auto method = std::make_shared<BroydenMethod>(*this);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
