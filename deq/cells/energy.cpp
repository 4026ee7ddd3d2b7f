#include "deq/cells/energy.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

std::shared_ptr<Cell> Energy::make(const CellPlace& place) const {
  return std::make_shared<EnergyCell>(*this, place);
}

EnergyCell::EnergyCell(const Energy& options, const CellPlace& place) : options_(options) {
  validate(options, "Energy");
  of_ = register_module("of", options.of->make(place, options.dimensions));
  initialise(0.02);
}

/// E once, and its gradient by z in about twice the time.
double EnergyCell::operations(int64_t batch, int64_t positions, int64_t) const {
  return 3 * of_->operations(batch, positions);
}

Tensor EnergyCell::eta(const Tensor& x) const {
  const auto numbers = x.options().requires_grad(false);
  if (!is_training() || options_.step_spread == 1 || !c10::GradMode::is_enabled())
    return at::full({}, options_.step, numbers);
  const double spread = std::log(options_.step_spread);
  return options_.step * ((2 * at::rand({x.size(0)}, numbers) - 1) * spread).exp();
}

std::vector<Bound> EnergyCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  DEQ_CHECK(x.dim() == options_.dimensions + 2 && x.size(-1) == input_width(),
            "EnergyCell: x has shape [{}]; expected {}, as cell-dimensions = {} says",
            fmt::join(x.sizes(), ", "),
            options_.dimensions == 1 ? fmt::format("(batch, positions, {})", input_width())
                                     : fmt::format("(batch, rows, columns, {})", input_width()),
            options_.dimensions);
  for (const History& history : levels)
    DEQ_CHECK(history.length() == 0,
              "EnergyCell: a history of {} positions; expected none: problems stand alone",
              history.length());
  const EnergyOf energy = of_->bind(x);
  const Map f = ops::gradient_step(energy, eta(x), x.sizes().vec());
  std::vector<Bound> bound(levels.size());
  for (Bound& one : bound) {
    one.f = f;
    one.extend = [](const Tensor&, int64_t) { return History{}; };
  }
  return bound;
}

}  // namespace deq
