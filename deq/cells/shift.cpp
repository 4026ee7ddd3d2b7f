#include "deq/cells/shift.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include "deq/cells/norm.h"

namespace deq {

using at::Tensor;

std::shared_ptr<Cell> Shift::make(const CellPlace&) const {
  return std::make_shared<ShiftCell>(*this);
}

ShiftCell::ShiftCell(const Shift& options) : options_(options) {
  validate(options, "Shift");
  const int64_t D = options.width, I = options.inner;
  inject_ = register_module("inject", std::make_shared<Linear>(D, I, true, false));
  state_ = register_module("state", std::make_shared<Linear>(D, I, false, false));
  output_ = register_module("output", std::make_shared<Linear>(I, D, true, false));
  initial_ = register_parameter("initial", torch::zeros({D}));
  initialise(0.02);
}

void ShiftCell::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  for (const auto& linear : {inject_, state_, output_}) linear->initialise(std);
  initial_.normal_(0, std);
}

double ShiftCell::operations(int64_t batch, int64_t positions, int64_t) const {
  return 4.0 * double(batch * positions) * double(options_.width * options_.inner);
}

/// f of some positions of a segment, behind one state.
struct ShiftCell::Level {
  Meeting meeting;
  Tensor state, output, output_bias;  // (I, D), (D, I), (D)
  Tensor injected;                    // (B, T, I)
  Tensor before;                      // (B, 1, D): what stands before position 0

  /// g's map of the states before some positions, `u` their injection.
  Tensor step(const Tensor& previous, const Tensor& u) const {
    const Tensor read = at::linear(previous, state);
    const Tensor met = meeting == Meeting::Additive ? (read + u).relu() : read * u;
    return rms_normalised(at::linear(met, output, output_bias));
  }
  Tensor operator()(const Tensor& z) const {
    return step(at::cat({before, z.narrow(1, 0, z.size(1) - 1)}, 1), injected);
  }
  /// Positions first .. first + count - 1.
  Level part(const Tensor& states, int64_t first, int64_t count) const {
    Level level = *this;
    level.injected = injected.narrow(1, first, count);
    if (first > 0) level.before = states.narrow(1, first - 1, 1);
    return level;
  }
  Level detached() const {
    Level level = *this;
    for (Tensor* part :
         {&level.state, &level.output, &level.output_bias, &level.injected, &level.before})
      *part = part->detach();
    return level;
  }

  /// u of u = J^T u + g at the equilibrium, by back-propagation through its positions.
  Tensor adjoint(const Tensor& g) const {
    const Level level = detached();
    c10::AutoGradMode tape(true);
    std::vector<Tensor> states, gradients;
    Tensor previous = level.before.detach().requires_grad_(true);
    for (int64_t t = 0; t < g.size(1); ++t) {
      previous = level.step(previous, level.injected.narrow(1, t, 1));
      states.push_back(previous);
      gradients.push_back(g.narrow(1, t, 1));
    }
    return at::cat(torch::autograd::grad(states, states, gradients), 1);
  }
};

std::vector<Bound> ShiftCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  check_bound_shapes("ShiftCell", x, options_.width, options_.width, levels);
  const Tensor initial = initial_.view({1, 1, -1}).expand({x.size(0), 1, options_.width});
  const Level shared{options_.meeting,
                     state_->weight(),
                     output_->weight(),
                     output_->bias(),
                     at::linear(x, inject_->weight(), inject_->bias()),
                     initial};
  std::vector<Bound> bound;
  for (const History& history : levels) {
    Level own = shared;
    if (history.z.defined() && history.z.size(1) > 0) {
      own.before = history.z.narrow(1, history.z.size(1) - 1, 1);
      if (!history.hidden.empty()) {  // rows whose text begins here
        const Tensor none = at::tensor(history.hidden, at::kLong)
                                .ge(history.z.size(1))
                                .view({-1, 1, 1})
                                .to(x.device());
        own.before = at::where(none, initial, own.before);
      }
    }
    const auto level = std::make_shared<const Level>(std::move(own));
    Bound f;
    f.f = Map([level](const Tensor& z) { return (*level)(z); }, {});
    f.f.set_part(
        [level](const Tensor& before, int64_t first, int64_t count) {
          const auto part = std::make_shared<const Level>(level->part(before, first, count));
          return Map([part](const Tensor& z) { return (*part)(z); }, {});
        },
        /*strictly=*/true);
    f.f.set_linearise([level](const Tensor& z) {
      Map::Linearised at_z = Map([level](const Tensor& s) { return (*level)(s); }, {}).linearise(z);
      at_z.solve = [level](const Tensor& g) { return level->adjoint(g); };
      return at_z;
    });
    f.extend = [](const Tensor& z, int64_t length) {
      return length == 0 ? History{} : History{.z = latest({}, z, 1)};
    };
    bound.push_back(std::move(f));
  }
  return bound;
}

}  // namespace deq
