#include "deq/layers/condition.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/cells/conditions.h"
#include "deq/gradients/implicit.h"

namespace deq {

using at::Tensor;

std::vector<Bound> ConditionCell::bind_levels(const Tensor&, const std::vector<History>&) {
  throw Error(fmt::format(
      "cell = {}: it meets a condition of its own, and has no f(z, x); expected a cell with one",
      name()));
}

bool has_condition(const CellOptions& cell) {
  return cell.is<LearnedClauses>() || cell.is<ChainedClauses>() || cell.is<LearnedProgram>();
}

LayerOutput ConditionLayer::forward(const Tensor& x, const Histories& histories,
                                    const ForwardOptions& how) {
  auto& own = dynamic_cast<ConditionCell&>(cell());
  DEQ_CHECK(histories.empty() && how.history == 0 && how.subsequence == 0,
            "a history or parts of a sequence: this cell meets a condition on a whole problem; "
            "expected none");
  DEQ_CHECK(!how.z0.defined(),
            "a state to start from: this cell has starts of its own; expected none");
  DEQ_CHECK(!how.jacobian_loss && !how.rest_loss && how.noise == 0 && how.free_steps == 0,
            "noise, free steps or a loss of f's: this cell has no f; expected none");
  ConditionOptions options{how.equilibrium.stop, how.equilibrium.stop, how.on_adjoint};
  if (const auto* implicit = how.equilibrium.gradient.get_if<Implicit>())
    options.adjoint = implicit->stop;
  Equilibrated found = own.solve(x, options);
  LayerOutput output;
  output.z = std::move(found.z);
  output.report = std::move(found.report);
  return output;
}

Tensor heard(const Tensor& weight, const std::shared_ptr<std::shared_ptr<LatestReport>>& latest,
             const std::function<void(const Report&)>& on_adjoint) {
  if (!on_adjoint || !c10::GradMode::is_enabled() || !weight.requires_grad()) return weight;
  const Tensor here = weight.view_as(weight);
  here.register_hook([latest, on_adjoint](const Tensor& gradient) {
    if (*latest) on_adjoint((*latest)->get());
    return gradient;
  });
  return here;
}

}  // namespace deq
