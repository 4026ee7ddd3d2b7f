// Each option in force changes something: the weights after a few steps, what a step reports, or
// the evaluation. One that is ignored is found here, whoever added it.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>
#include <set>

#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

/// What a result does not hang on: where data are, how long a run goes on and what it keeps, the
/// machine's part, and what trades memory or speed only.
const std::set<std::string> kOfTheRun = {
    "data",      "task_vocabulary", "minutes", "eval_every", "patience",   "save_every",
    "log_every", "steps",           "threads", "device",     "eval_batch", "checkpointed"};

Assignments tiny() {
  return {{"task", "bytes"},
          {"batch", "2"},
          {"length", "6"},
          {"history", "6"},
          {"steps", "9"},
          {"max_steps", "5"},
          {"init_std", "0.5"},
          {"rate", "0.01"},
          {"embedding_init_std", "0.4"},
          {"eval_lanes", "2"},
          {"eval_length", "9"},
          {"eval_history", "9"},
          {"task_valid_share", "0.03"},
          {"task_test_share", "0.03"}};
}

Assignments with(Assignments given, const Assignments& more) {
  for (const auto& [key, value] : more) given[key] = value;
  return given;
}

Assignments transformer() {
  return with(tiny(), {{"cell_width", "6"}, {"cell_heads", "2"}, {"cell_inner", "7"}});
}
Assignments trellisnet() {
  return with(tiny(), {{"cell", "trellisnet"}, {"cell_hidden", "3"}, {"cell_output", "3"}});
}

/// Levels have no solver.
Assignments levels_of(Assignments given, const Assignments& more) {
  given.erase("max_steps");
  return with(given, more);
}

struct Network {
  std::string name;
  Assignments given;
};
std::ostream& operator<<(std::ostream& out, const Network& network) { return out << network.name; }

std::vector<Network> networks() {
  const Assignments all = {{"pretrain_steps", "1"},        {"fewer_steps", "1"},
                           {"jacobian_weight", "1"},       {"jacobian_frequency", "0.5"},
                           {"jacobian_growth_every", "2"}, {"gradient_max_steps", "4"}};
  const Assignments copies = {{"task", "copy-memory"},
                              {"task_delay", "2"},
                              {"task_train_sequences", "12"},
                              {"task_valid_sequences", "3"},
                              {"task_test_sequences", "3"}};
  Assignments copying = with(transformer(), copies);
  for (const char* key : {"length", "history", "eval_lanes", "eval_length", "eval_history",
                          "task_valid_share", "task_test_share"})
    copying.erase(key);
  return {
      {"implicit", with(transformer(), all)},
      {"causal_adjoint", with(transformer(), {{"gradient_solver_scope", "causal"},
                                              {"gradient_max_steps", "4"},
                                              {"optimizer", "radam"},
                                              {"optimizer_beta2", "0.9"},
                                              {"decay", "plateau"},
                                              {"warmup", "2"}})},
      {"broyden", with(transformer(), {{"solver", "broyden"},
                                       {"gradient_solver", "broyden"},
                                       {"optimizer", "adamw"},
                                       {"decay", "inverse-sqrt"}})},
      {"phantom", with(trellisnet(), {{"gradient", "phantom"},
                                      {"solver", "picard"},
                                      {"optimizer", "sgd"},
                                      {"decay", "constant"}})},
      {"unrolled", with(trellisnet(), {{"gradient", "unrolled"}, {"mixture_experts", "2"}})},
      {"clusters", with(transformer(), {{"embedding_cutoffs", "60,105"},
                                        {"embedding_div_val", "2"},
                                        {"embedding_width", "8"},
                                        {"gradient", "one-step"}})},
      {"levels", levels_of(trellisnet(), {{"depth", "2"}})},
      {"lstm",
       levels_of(tiny(),
                 {{"cell", "lstm"}, {"cell_width", "5"}, {"depth", "2"}, {"tied", "false"}})},
      {"stack_rnn", levels_of(tiny(), {{"cell", "stack-rnn"},
                                       {"cell_width", "5"},
                                       {"cell_stack_depth", "3"},
                                       {"cell_stack_width", "2"},
                                       {"depth", "2"},
                                       {"tied", "false"}})},
      {"ntm", levels_of(tiny(), {{"cell", "ntm"},
                                 {"cell_width", "5"},
                                 {"cell_slots", "4"},
                                 {"cell_slot_width", "3"},
                                 {"depth", "2"},
                                 {"tied", "false"}})},
      {"tcn", levels_of(tiny(),
                        {{"cell", "tcn"}, {"cell_width", "4"}, {"depth", "2"}, {"tied", "false"}})},
      {"copy_memory", copying}};
}

TrainOptions assigned(const Assignments& given) {
  TrainOptions options;
  assign_options(options, given);
  settle(options, given);
  return options;
}

/// Everything that a run of these options prints or leaves behind.
std::vector<double> outcome(const TrainOptions& options) {
  static const testing::Scratch scratch;
  const auto text = scratch / "text.txt";
  if (!std::filesystem::exists(text)) testing::spill(text, testing::small_text().substr(0, 2000));
  const bool texts = continues_text(options.task);
  Trainer trainer(options, load(options.task, texts ? text.string() : ""));
  std::vector<double> found;
  for (int step = 0; step < 7; ++step) {
    const StepReport r = trainer.step();
    found.insert(found.end(), {r.loss, r.rate, r.gradient_norm, r.jacobian, r.residual,
                               r.converged_share, r.evaluations, r.adjoint_residual,
                               r.adjoint_evaluations, r.adjoint_converged_share});
    if (step % 2 == 1) trainer.schedule().evaluated(1);
  }
  for (const auto& [name, tensor] : trainer.state()) {
    if (name.rfind("model.", 0) == 0)
      found.push_back(tensor.to(at::kDouble).square().sum().item<double>());
  }
  for (const Evaluation& e : {trainer.evaluate_valid(), trainer.evaluate_test()})
    found.insert(found.end(), {e.loss, e.mean_residual, e.worst_residual, e.converged_share,
                               e.evaluations, double(e.tokens), double(e.unconverged)});
  return found;
}

/// Other values to try, until one is allowed and changes something.
std::vector<std::string> others(const OptionInfo& info) {
  if (info.type == "bool") return {info.value == "true" ? "false" : "true"};
  std::vector<std::string> found;
  if (info.type == "list") {
    found = {"1", "0", "70", "50,110"};
  } else if (!info.choices.empty()) {
    found = info.choices;
  } else if (info.type == "int") {
    const int64_t value = std::stoll(info.value);
    for (const int64_t other :
         {2 * value, value + 1, value - 1, value + 2, value / 2, int64_t{2}, int64_t{0}})
      found.push_back(std::to_string(other));
  } else {
    const double value = std::stod(info.value);
    for (const double other : {value / 2, 2 * value, 100 * value, 0.25}) {
      if (other != value) found.push_back(fmt::format("{}", other));
    }
  }
  std::erase(found, info.value);
  return found;
}

class Effects : public ::testing::TestWithParam<Network> {};

TEST_P(Effects, EveryOptionInForceChangesSomething) {
  at::set_num_threads(1);
  const TrainOptions base = assigned(GetParam().given);
  const std::vector<double> before = outcome(base);
  ASSERT_EQ(outcome(base), before) << "a run does not repeat itself";
  for (const OptionInfo& info : options_in_force(base)) {
    if (kOfTheRun.count(info.key)) continue;
    // Levels carry all of their past: where a text is cut changes nothing of an evaluation.
    if (base.model.is_explicit() && info.key == "eval_length") continue;
    if (info.key == "rest_weight") continue;  // no answer of so short a run is right: path_test
    bool tried = false, changed = false;
    for (const std::string& value : others(info)) {
      try {
        Assignments given = GetParam().given;
        given[info.key] = value;
        TrainOptions other;
        assign_options(other, given);
        settle(other.equilibrium, other.model, {});
        const std::vector<double> after = outcome(other);
        tried = true;
        changed = after != before;
      } catch (const Error&) {
        continue;  // refused: not ignored
      }
      if (changed) break;
    }
    EXPECT_TRUE(changed || !tried) << info.key << " = " << info.value << " is ignored";
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, Effects, ::testing::ValuesIn(networks()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace deq
