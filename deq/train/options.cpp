#include "deq/train/options.h"

#include "deq/gradients/implicit.h"
#include "deq/layers/condition.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/sweep.h"
#include "deq/train/idle_options.h"

namespace deq {
namespace {

std::vector<std::string> cells_on_grids() {
  std::vector<std::string> names;
  for (const CellOptions& cell : CellMaker::known()) {
    if (cell->takes_grids()) names.push_back(cell.name());
  }
  return names;
}

/// The scope that leaks nothing, where none is given.
void choose_scope(EquilibriumOptions& equilibrium, const ModelOptions& model,
                  const Assignments& given) {
  if (model.is_explicit()) return;
  if (given.count("solver_scope")) return;
  const bool causal = model.cell->is_causal();
  const bool fits = causal == by_position(scope_of(equilibrium.solver));
  if (fits || (causal && !given.count("solver"))) return;
  const bool anderson = equilibrium.solver.is<Anderson>();
  const Scope own = anderson ? Scope::Causal : Scope::Position;
  equilibrium.solver = with_scope(equilibrium.solver, causal ? own : Scope::Sample);
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
  DEQ_CHECK(model.is_explicit() || !equilibrium.solver.is<Sweep>() || model.cell->is_causal(),
            "solver = sweep: positions of cell {} depend on later ones; expected a causal cell, or "
            "another solver",
            model.cell.name());
  choose_scope(equilibrium, model, given);
  check_effect(idle_options(equilibrium, model), given);
}

void settle(TrainOptions& options, const Assignments& given) {
  DEQ_CHECK(options.task->dimensions() == 1 || options.model.cell->takes_grids(),
            "cell = {}: it takes sequences, and a problem of task {} is a grid; expected one of {}",
            options.model.cell.name(), options.task.name(), fmt::join(cells_on_grids(), ", "));
  if (!given.count("cell_dimensions")) {
    options.model.cell->set_dimensions(options.task->dimensions());
    if (given.count("cell_causal"))  // which is refused of a grid, not overruled
      assign_options(options.model, {{"cell_causal", given.at("cell_causal")}});
  }
  DEQ_CHECK(!has_condition(options.model.cell) || !continues_text(options.task),
            "cell = {}: it answers problems that stand alone, and task {} is of texts; expected a "
            "task of problems",
            options.model.cell.name(), options.task.name());
  if (options.task->own_answers() && !given.count("embedding_tie_weights"))
    options.model.embedding.tie_weights = false;
  if (!given.count("reading"))
    assign_options(options.model, {{"reading", options.task->reading()}});
  DEQ_CHECK(options.task->reading() != "series" || options.model.ends.reading == Reading::Series,
            "reading = {}: task {} is of real values; expected series",
            Names<Reading>::values[size_t(options.model.ends.reading)], options.task.name());
  settle(options.equilibrium, options.model, given);
  check_effect(idle_options(options), given);
}

void check_evaluation(const Task& task, const Assignments& given, bool measures_leak) {
  check_effect(idle_in_evaluation(task, measures_leak), given);
}

std::vector<OptionInfo> options_in_force(const TrainOptions& options) {
  std::vector<OptionInfo> all = selected_options(options);
  const Idle idle = idle_options(options);
  std::erase_if(all, [&](const OptionInfo& info) {
    return idle.count(info.key) > 0 || (info.key == "shards" && info.value == "1") ||
           (info.key == "halting" && info.value == "none");
  });
  return all;
}

}  // namespace deq
