#include "deq/train/idle_options.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "deq/cells/conditions.h"
#include "deq/cells/energy.h"
#include "deq/cells/energy_groups.h"
#include "deq/cells/groups.h"
#include "deq/cells/ntm.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/stack_rnn.h"
#include "deq/cells/tcn.h"
#include "deq/gradients/implicit.h"
#include "deq/gradients/reversible.h"
#include "deq/gradients/unrolled.h"
#include "deq/layers/condition.h"
#include "deq/solvers/anderson.h"
#include "deq/tasks/masked.h"
#include "deq/tasks/sudoku.h"

namespace deq {
namespace {

void add(Idle& idle, const std::vector<std::string>& keys, const std::string& why) {
  for (const std::string& key : keys) idle.emplace(key, why);
}

/// Keys that say how an equilibrium is found, differentiated or kept stable.
std::vector<std::string> equilibrium_keys() {
  std::vector<std::string> keys{"pretrain_steps",  "pretrain_depth",     "fewer_steps",
                                "jacobian_weight", "jacobian_frequency", "jacobian_growth_every",
                                "subsequence",     "eval_subsequence",   "start",
                                "start_std",       "start_limit_mb",     "noise",
                                "rest_weight",     "rest_after",         "progressive"};
  for (const OptionInfo& info : list_options(EquilibriumOptions{})) keys.push_back(info.key);
  return keys;
}

/// Of the options of a solver, which stand behind `prefix`.
void add_idle(Idle& idle, const Solver& solver, const std::string& prefix) {
  const auto* anderson = solver.get_if<Anderson>();
  if (!anderson) return;
  if (anderson->memory == 1)
    add(idle, {prefix + "ridge", prefix + "decay"},
        fmt::format("nothing is mixed with {}memory = 1; expected >= 2 with it", dashed(prefix)));
  if (anderson->scope != Scope::Causal)
    add(idle, {prefix + "decay"},
        fmt::format("scope {} weighs its positions alike; expected {}scope = causal with it",
                    Names<Scope>::values[size_t(anderson->scope)], dashed(prefix)));
}

/// Of a cell with a condition of its own, which is met and differentiated in one way.
void add_idle_of_condition(Idle& idle, const EquilibriumOptions& equilibrium,
                           const CellOptions& cell) {
  std::vector<std::string> keys = equilibrium_keys();
  std::set<std::string> in_force{"max_steps", "rel_tol"};
  if (!cell.is<LearnedProgram>() && equilibrium.gradient.is<Implicit>())
    in_force.insert({"gradient_max_steps", "gradient_rel_tol"});
  std::erase_if(keys, [&](const std::string& key) { return in_force.count(key) > 0; });
  keys.insert(keys.end(),
              {"segments", "carry", "carry_right", "carry_over", "carry_grace", "init_std",
               "embedding_init_std", "input_dropout", "output_dropout", "reading", "pool"});
  add(idle, keys,
      fmt::format("cell {} meets a condition of its own, and its state is its answer; expected a "
                  "cell with an f(z, x) with it",
                  cell.name()));
}

/// Of ends that answer no values, or other ones.
void add_idle_values(Idle& idle, const ModelOptions& model) {
  const ValueOptions& values = model.ends.values;
  if (model.ends.reading != Reading::Series) {
    add(idle, {"head", "value_error", "quantiles"},
        "no real values are answered; expected reading = series with it");
  } else if (values.head == ValueAnswer::Quantiles) {
    add(idle, {"value_error"}, "quantiles have the pinball loss; expected head = values with it");
  } else {
    add(idle, {"quantiles"}, "one number is answered; expected head = quantiles with it");
  }
  if (model.ends.reading == Reading::Series)
    add(idle, {"carry_right", "rest_weight", "rest_after"},
        "no real value is right or wrong; expected another task with it");
}

/// Of ends that have no tables of words.
void add_idle_tables(Idle& idle, const ModelOptions& model) {
  const Reading reading = model.ends.reading;
  if (reading != Reading::Rows)
    add(idle, {"row"}, "no rows are read; expected reading = rows with it");
  const auto* energy = model.cell.get_if<Energy>();
  const bool groups = model.cell.is<Groups>() || (energy && energy->of.is<EnergyGroups>());
  add_idle_values(idle, model);
  const bool condition = has_condition(model.cell);
  if (!groups && !condition && reading == Reading::Symbols) return;
  const std::string why =
      condition
          ? "a cell that meets a condition has its answer in its state; expected another cell "
            "with it"
      : groups ? "a cell over groups reads and answers by symbol; expected another cell with it"
               : fmt::format("reading {} has no tables; expected reading = symbols with it",
                             Names<Reading>::values[size_t(reading)]);
  for (const std::string prefix : {"embedding_", "mixture_"}) {
    for (const OptionInfo& info : list_options(model)) {
      if (info.key.rfind(prefix, 0) == 0 && info.key != "embedding_init_std")
        add(idle, {info.key}, why);
    }
  }
}

struct OfTheTask {
  Task task;
  static void fields(auto& self, auto&& field) { field("task", self.task); }
};

/// The options of a task that are not its defaults: a run's file has all of them.
Assignments chosen_options(const Task& task) {
  Assignments values, chosen;
  const auto is_same = [&](const Task& known) { return known.name() == std::string(task.name()); };
  const auto& known = TaskData::known();
  const auto base = std::find_if(known.begin(), known.end(), is_same);
  for (const OptionInfo& info : selected_options(OfTheTask{*base})) values[info.key] = info.value;
  for (const OptionInfo& info : selected_options(OfTheTask{task})) {
    if (values[info.key] != info.value) chosen[info.key] = info.value;
  }
  return chosen;
}

bool unrolls(const Gradient& gradient) {
  return gradient.is<Unrolled>() || gradient.is<Checkpointed>() ||
         gradient.is<ReversibleUnrolled>();
}

int64_t pool_of(const Task& task) {
  for (const OptionInfo& info : selected_options(OfTheTask{task})) {
    if (info.key == "task_pool") return std::stoll(info.value);
  }
  return 0;
}

/// Of which problems are trained on, and of how a file is cut.
void add_idle_problems(Idle& idle, const TrainOptions& options) {
  const Assignments chosen = chosen_options(options.task);
  const auto add_chosen = [&](const char* key, const std::string& why) {
    if (chosen.count(key)) add(idle, {key}, why);
  };
  const int64_t pool = pool_of(options.task);
  if (pool > 0 && !options.task.is<Sudoku>())
    add_chosen("task_train", fmt::format("an epoch has the same task-pool = {} problems each time; "
                                         "expected task-pool = 0 with it",
                                         pool));
  const auto* masked = options.task.get_if<Masked>();
  if (masked && masked->longest > masked->length)
    add_chosen(
        "task_longest",
        fmt::format("a piece has task-length = {} characters; expected no more", masked->length));
  std::error_code ignored;
  const std::filesystem::path data(options.data);
  if (std::filesystem::is_directory(data, ignored) &&
      !std::filesystem::exists(data / "input.txt", ignored)) {
    for (const char* key : {"task_valid_share", "task_test_share"})
      add_chosen(key, fmt::format("'{}' is a folder with its splits; expected one file with it",
                                  options.data));
  }
}

/// Of levels where there are none, and of clusters of a vocabulary that has one.
void add_idle_structure(Idle& idle, const ModelOptions& model) {
  const DepthOptions& depth = model.depth;
  const auto add_off = [&](const char* key, bool differs) {
    if (differs && depth.depth == 0)
      add(idle, {key}, "an equilibrium has no levels; expected depth >= 1 with it");
  };
  add_off("tied", !depth.tied);
  add_off("injection", !depth.injection);
  add_off("checkpointed", depth.checkpointed);
  if (model.embedding.cutoffs.empty() && model.embedding.div_val > 1)
    add(idle, {"embedding_div_val"}, "there is one cluster; expected embedding-cutoffs with it");
}

/// Of how a split is cut.
Idle idle_cuts(const Task& task) {
  Idle idle;
  if (!continues_text(task))
    add(idle, {"length", "history", "eval_lanes", "eval_length", "eval_history"},
        fmt::format("sequences of task {} are never cut; expected a text with it", task.name()));
  return idle;
}

}  // namespace

Idle idle_options(const EquilibriumOptions& equilibrium, const ModelOptions& model) {
  Idle idle;
  if (has_condition(model.cell)) add_idle_of_condition(idle, equilibrium, model.cell);
  if (model.is_explicit()) {
    const bool chained = model.cell.is<Lstm>() || model.cell.is<Gru>() || model.cell.is<Tcn>() ||
                         model.cell.is<StackRnn>() || model.cell.is<Ntm>();
    if (chained && (!model.depth.tied || model.depth.depth == 1))
      add(idle, {"injection"},
          fmt::format("levels of {} see x in their state alone; expected tied = true with it",
                      model.cell.name()));
    add(idle, equilibrium_keys(),
        fmt::format("a network of depth {} has no equilibrium; expected depth = 0 with it",
                    model.depth.depth));
    return idle;
  }
  add_idle(idle, equilibrium.solver, "solver_");
  if (const auto* implicit = equilibrium.gradient.get_if<Implicit>())
    add_idle(idle, implicit->solver, "gradient_solver_");
  return idle;
}

Idle idle_options(const TrainOptions& options) {
  Idle idle = idle_options(options.equilibrium, options.model);
  const StabilityOptions& stability = options.loop.stability;
  if (stability.pretrain_steps == 0)
    add(idle, {"pretrain_depth"}, "no step has it; expected pretrain-steps >= 1 with it");
  if (stability.jacobian_weight == 0)
    add(idle, {"jacobian_frequency", "jacobian_growth_every"},
        "nothing is weighed; expected jacobian-weight > 0 with it");
  const PathOptions& path = options.loop.path;
  if (path.start.kind != StartKind::Normal && path.start.kind != StartKind::Mixed)
    add(idle, {"start_std"}, "nothing is drawn; expected start = normal or mixed with it");
  if (path.start.kind != StartKind::Remembered)
    add(idle, {"start_limit_mb"}, "nothing is kept; expected start = remembered with it");
  if (path.rest_weight == 0)
    add(idle, {"rest_after"}, "nothing is weighed; expected rest-weight > 0 with it");
  if (path.carry == 0)
    add(idle, {"carry_right", "carry_over", "carry_grace"},
        "each problem is there for one step; expected carry >= 2 with it");
  if (continues_text(options.task))
    add(idle,
        {"segments", "carry", "carry_right", "carry_over", "carry_grace", "rest_weight", "reading",
         "pool"},
        fmt::format("a text of task {} goes on from step to step; expected a task of problems "
                    "with it",
                    options.task.name()));
  if (unrolls(options.equilibrium.gradient))
    add(idle, {"fewer_steps", "subsequence"},
        fmt::format("gradient {} takes its gradient-steps and solves nothing in training; expected "
                    "implicit, phantom or one-step with it",
                    options.equilibrium.gradient.name()));
  if (options.task.is<Sudoku>() && !options.data.empty())
    add(idle, {"task_pool"},
        fmt::format("boards are those of {}; expected no data with it", options.data));
  add_idle_problems(idle, options);
  add_idle_structure(idle, options.model);
  add_idle_tables(idle, options.model);
  idle.merge(idle_cuts(options.task));
  return idle;
}

Idle idle_in_evaluation(const Task& task, bool measures_leak) {
  Idle idle = idle_cuts(task);
  if (measures_leak) idle.erase("eval_lanes");
  add(idle, {"halting_cost", "halting_prior", "halting_weight", "halting_bias"},
      "it is of training; expected halting-threshold to move where problems halt");
  return idle;
}

void check_effect(const Idle& idle, const Assignments& given) {
  for (const auto& [key, value] : given) {
    const auto found = idle.find(key);
    DEQ_CHECK(found == idle.end(), "{} = {}: {}", dashed(key), value, found->second);
  }
}

}  // namespace deq
