#include "deq/train/options.h"

#include "deq/gradients/implicit.h"
#include "deq/solvers/anderson.h"

namespace deq {
namespace {

/// Keys that say how an equilibrium is found, differentiated or kept stable.
std::set<std::string> equilibrium_keys() {
  std::set<std::string> keys{"pretrain_steps",  "pretrain_depth",     "fewer_steps",
                             "jacobian_weight", "jacobian_frequency", "jacobian_growth_every",
                             "subsequence",     "eval_subsequence"};
  for (const OptionInfo& info : list_options(EquilibriumOptions{})) keys.insert(info.key);
  return keys;
}

}  // namespace

EquilibriumOptions training_equilibrium() {
  constexpr StopRule kStop{.max_steps = 30, .rel_tol = 1e-3};
  return {.solver = Anderson{.scope = Scope::Causal},
          .stop = kStop,
          .gradient =
              Implicit{.solver = Anderson{.memory = 12, .scope = Scope::Sample}, .stop = kStop}};
}

void settle(EquilibriumOptions& equilibrium, const ModelOptions& model, const Assignments& given) {
  if (model.is_explicit()) {
    const auto keys = equilibrium_keys();
    for (const auto& [key, value] : given) {
      DEQ_CHECK(!keys.count(key),
                "{} = {}: a network of depth {} has no equilibrium; expected depth = 0 with it",
                dashed(key), value, model.depth.depth);
    }
    return;
  }
  if (given.count("solver_scope")) return;
  const bool causal = model.cell->is_causal();
  const bool fits = causal == by_position(scope_of(equilibrium.solver));
  if (fits || (causal && !given.count("solver"))) return;
  const bool anderson = equilibrium.solver.is<Anderson>();
  const Scope own = anderson ? Scope::Causal : Scope::Position;
  equilibrium.solver = with_scope(equilibrium.solver, causal ? own : Scope::Sample);
}

std::vector<OptionInfo> options_in_force(const TrainOptions& options) {
  std::vector<OptionInfo> all = selected_options(options);
  if (!options.model.is_explicit()) return all;
  const auto keys = equilibrium_keys();
  std::erase_if(all, [&](const OptionInfo& info) { return keys.count(info.key) > 0; });
  return all;
}

}  // namespace deq
