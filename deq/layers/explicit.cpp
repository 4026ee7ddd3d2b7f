#include "deq/layers/explicit.h"

#include <torch/types.h>

#include "deq/gradients/unrolled.h"

namespace deq {

LayerOutput run_levels(const std::vector<Bound>& levels, const at::Tensor& z0, int64_t history,
                       bool checkpointed) {
  // Levels are called again in backward where they are checkpointed: only the first call's input is
  // kept, and of it only what the next segment can see.
  struct Kept {
    History history;
    bool done = false;
  };
  auto kept = std::make_shared<std::vector<Kept>>(levels.size());
  std::vector<Map> maps;
  for (size_t l = 0; l < levels.size(); ++l) {
    maps.push_back([kept, l, level = levels[l], history](const at::Tensor& z) {
      at::Tensor fz = level.f(z);
      Kept& own = (*kept)[l];
      if (!own.done) own = {level.extend(z.detach(), history), true};
      return fz;
    });
  }
  LayerOutput output;
  output.z = checkpointed ? checkpointed_levels(maps, z0) : unrolled_levels(maps, z0);
  for (Kept& own : *kept) output.histories.push_back(std::move(own.history));
  output.report.evaluations = int64_t(levels.size());
  return output;
}

ExplicitLayer::ExplicitLayer(const CellOptions& cell, const DepthOptions& depth, int64_t symbols)
    : Layer(cell, depth, symbols) {
  if (depth.step_embedding)
    steps_ = torch::zeros({depth.depth, this->cell().state_width()}).requires_grad_(true);
}

LayerOutput ExplicitLayer::forward(const at::Tensor& x, const Histories& histories,
                                   const ForwardOptions& how) {
  std::vector<Bound> levels = bind(x, histories);
  for (size_t l = 0; l < levels.size() && steps_.defined(); ++l) {
    const at::Tensor step = steps_[int64_t(l)];
    levels[l].f = Map([f = levels[l].f, step](const at::Tensor& z) { return f(z + step); }, {});
    levels[l].extend = [extend = levels[l].extend, step](const at::Tensor& z, int64_t length) {
      return extend(z + step.detach(), length);
    };
  }
  DEQ_CHECK(!how.states || !depth_.checkpointed,
            "checkpointed = true: the states between its levels have no tape; expected false");
  std::vector<at::Tensor> states;
  if (how.states) {
    for (Bound& level : levels) {
      level.f = Map(
          [f = level.f, &states](const at::Tensor& z) {
            states.push_back(f(z));
            return states.back();
          },
          {});
    }
  }
  LayerOutput output = run_levels(levels, start(x, how), how.history, depth_.checkpointed);
  output.states = std::move(states);
  return output;
}

}  // namespace deq
