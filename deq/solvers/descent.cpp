#include "deq/solvers/descent.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "deq/ops/rows.h"
#include "deq/solvers/solver_loop.h"

namespace deq {

using at::Tensor;

namespace {

constexpr int kHalvings = 40;

class DescentMethod {
 public:
  DescentMethod(Map::Evaluate energy, double step, const Layout& layout)
      : energy_(std::move(energy)),
        first_(step),
        samples_(layout.batch),
        step_(size_t(layout.rows()), step) {}

  Proposal propose(const Iterate& at) {
    const bool known =
        !energies_.empty() && std::find(at.anew.begin(), at.anew.end(), 1) == at.anew.end();
    if (!known) energies_ = energies(at.z);
    choose_steps(at);
    Tensor next = stepped(at);
    Numbers there = energies(next);
    for (int halving = 0; halving < kHalvings && take_back(at, there); ++halving) {
      next = stepped(at);
      there = energies(next);
    }
    before_z_ = at.z;
    before_g_ = at.g;
    energies_ = std::move(there);
    return {next, {}};
  }

 private:
  /// Of each row.
  Numbers energies(const Tensor& z) const {
    Tensor found = energy_(z.view({samples_, -1})).detach().to(at::kCPU, at::kDouble).contiguous();
    DEQ_CHECK(found.sizes() == at::IntArrayRef({samples_}),
              "solver descent: an energy of shape [{}]; expected [{}], one for each sample",
              fmt::join(found.sizes(), ", "), samples_);
    if (int64_t(step_.size()) != samples_) found = found.sum().view({1});
    const auto* first = found.data_ptr<double>();
    return Numbers(first, first + found.numel());
  }

  void choose_steps(const Iterate& at) {
    if (!before_z_.defined()) return;
    const Tensor s = at.z - before_z_, y = before_g_ - at.g;
    const Tensor dots = ops::row_dots({s, y}, y, at.resting, &at.pool).cpu();
    const auto* dot = dots.data_ptr<double>();
    for (size_t r = 0; r < step_.size(); ++r) {
      const double sy = dot[2 * r], yy = dot[2 * r + 1];
      if (at.anew[r]) {
        step_[r] = first_;
      } else if (!at.resting[r]) {
        step_[r] = sy > 0 && std::isfinite(sy / yy) ? sy / yy : 2 * step_[r];
      }
    }
  }

  Tensor stepped(const Iterate& at) const {
    const Tensor a = tensor_of(step_, at::kDouble).view({-1, 1}).to(at.z.device());
    return ops::row_mix(a, {at.g}, at.z, at.resting, &at.pool);
  }

  /// Halves the steps that lead up; whether there are any.
  bool take_back(const Iterate& at, const Numbers& there) {
    const double share = round_off(at.z.scalar_type());
    bool any_back = false;
    for (size_t r = 0; r < step_.size(); ++r) {
      if (at.resting[r] || there[r] <= energies_[r] + share * std::abs(energies_[r])) continue;
      step_[r] /= 2;
      any_back = true;
    }
    return any_back;
  }

  Map::Evaluate energy_;
  double first_;
  int64_t samples_;
  Numbers step_, energies_;     // of each row
  Tensor before_z_, before_g_;  // (R, n)
};

}  // namespace

Propose Descent::start(const Map& f, const Layout& layout) const {
  DEQ_CHECK(f.energy(),
            "solver {}: this f has no energy; expected an f that descends one, as the cell "
            "energy's, or another solver",
            name);
  DEQ_CHECK(!layout.by_position(),
            "solver {}: scope = {}: an energy is of a whole sample; expected sample or whole", name,
            Names<Scope>::values[size_t(layout.scope)]);
  const auto method = std::make_shared<DescentMethod>(f.energy(), step, layout);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
