// Options that depend on each other, and the configurations in runs/.
#include "deq/train/options.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "deq/base/toml.h"
#include "deq/cells/transformer.h"
#include "deq/files/files.h"
#include "deq/models/language_model.h"
#include "deq/runs/dry_run.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

TrainOptions assigned(const Assignments& given) {
  TrainOptions options;
  assign_options(options, given);
  settle(options, given);
  return options;
}

Scope scope_with(const Assignments& given) { return scope_of(assigned(given).equilibrium.solver); }

TEST(Settle, ChoosesAScopeThatLeaksNothing) {
  EXPECT_EQ(scope_with({}), Scope::Causal);
  EXPECT_EQ(scope_with({{"solver", "anderson"}}), Scope::Causal);
  EXPECT_EQ(scope_with({{"solver", "broyden"}}), Scope::Position);
  EXPECT_EQ(scope_with({{"solver", "picard"}}), Scope::Position);
  EXPECT_EQ(scope_with({{"cell", "trellisnet"}, {"solver", "broyden"}}), Scope::Position);
  EXPECT_EQ(scope_with({{"cell_causal", "false"}}), Scope::Sample);
  EXPECT_EQ(scope_with({{"cell_causal", "false"}, {"solver", "broyden"}}), Scope::Sample);
  EXPECT_EQ(scope_with({{"solver", "broyden"}, {"solver_scope", "sample"}}), Scope::Sample);
}

TEST(Settle, RefusesWhatAnExplicitNetworkHasNoUseFor) {
  EXPECT_NO_THROW(assigned({{"depth", "12"}, {"checkpointed", "true"}}));
  for (const char* key : {"rel_tol", "max_steps", "solver_memory", "gradient_max_steps",
                          "pretrain_steps", "jacobian_weight", "subsequence"}) {
    EXPECT_THROW(assigned({{"depth", "12"}, {key, "1"}}), Error) << key;
    EXPECT_NO_THROW(assigned({{key, "1"}})) << key;
  }
}

TEST(Settle, WhatIsInForceReadsBackToTheSame) {
  for (const Assignments& given : {Assignments{}, Assignments{{"depth", "3"}, {"tied", "false"}},
                                   Assignments{{"cell", "lstm"}, {"depth", "1"}}}) {
    const auto lines = options_in_force(assigned(given));
    const TrainOptions again = assigned(parse_toml(to_toml(lines), "config.toml"));
    EXPECT_EQ(to_toml(options_in_force(again)), to_toml(lines));
  }
}

TEST(Settle, RefusesACellThatTheTaskOrTheSolverDoesNotFit) {
  for (const char* task : {"sudoku", "mazes"}) {
    for (const char* cell : {"conv", "groups", "transformer", "monotone-conv"})
      EXPECT_NO_THROW(assigned({{"task", task}, {"cell", cell}})) << cell;
    for (const char* cell : {"shift", "trellisnet", "lstm", "gru", "tcn"})
      EXPECT_SAYS(testing::error_of([&] {
                    assigned({{"task", task}, {"cell", cell}});
                  }),
                  "a problem of task " + std::string(task) +
                      " is a grid; expected one of transformer, conv, groups, monotone-conv");
  }
  EXPECT_SAYS(testing::error_of([] {
                assigned({{"cell", "conv"}, {"solver", "sweep"}});
              }),
              "solver = sweep: positions of cell conv");
  EXPECT_NO_THROW(assigned({{"cell", "shift"}, {"solver", "sweep"}}));
}

TEST(Settle, RefusesWhatChangesNothing) {
  const std::vector<std::pair<Assignments, const char*>> idle = {
      {{{"pretrain_depth", "3"}}, "pretrain-depth = 3: no step has it"},
      {{{"jacobian_frequency", "1"}}, "jacobian-weight > 0 with it"},
      {{{"jacobian_growth_every", "5"}}, "jacobian-weight > 0 with it"},
      {{{"gradient", "unrolled"}, {"fewer_steps", "2"}}, "gradient unrolled takes its"},
      {{{"gradient", "checkpointed"}, {"fewer_steps", "2"}}, "gradient checkpointed takes its"},
      {{{"gradient", "unrolled"}, {"subsequence", "2"}}, "solves nothing in training"},
      {{{"solver_scope", "position"}, {"solver_decay", "0.9"}}, "expected solver-scope = causal"},
      {{{"gradient_solver_decay", "0.9"}}, "expected gradient-solver-scope = causal"},
      {{{"solver_memory", "1"}, {"solver_ridge", "0.1"}}, "nothing is mixed with solver-memory"},
      {{{"cell", "lstm"}, {"depth", "2"}, {"tied", "false"}, {"injection", "false"}},
       "see x in their state alone"},
      {{{"task", "copy-memory"}, {"length", "9"}}, "copy-memory are never cut"},
      {{{"task", "copy-memory"}, {"history", "9"}}, "copy-memory are never cut"},
      {{{"task", "copy-memory"}, {"eval_lanes", "9"}}, "copy-memory are never cut"},
      {{{"task", "copy-memory"}, {"eval_length", "9"}}, "copy-memory are never cut"},
      {{{"task", "copy-memory"}, {"eval_history", "9"}}, "copy-memory are never cut"},
      {{{"task", "sudoku"}, {"cell", "groups"}, {"data", "b.csv"}, {"task_pool", "9"}},
       "boards are those of b.csv"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"solver", "picard"}},
       "solver = picard: cell maxsat meets a condition of its own"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"gradient", "unrolled"}}, "cell maxsat meets"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"abs_tol", "1"}}, "cell maxsat meets"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"start", "normal"}}, "cell maxsat meets"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"carry", "4"}}, "cell maxsat meets"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"segments", "2"}}, "cell maxsat meets"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"init_std", "1"}}, "cell maxsat meets"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"output_dropout", "0.1"}}, "cell maxsat meets"},
      {{{"task", "sudoku"}, {"cell", "maxsat"}, {"embedding_width", "8"}},
       "a cell that meets a condition has its answer in its state"},
      {{{"task", "sudoku"}, {"cell", "optnet"}, {"gradient_max_steps", "9"}}, "cell optnet meets"},
      {{{"cell", "maxsat-chain"}}, "answers problems that stand alone"},
      {{{"task", "prefix-sums"}, {"carry_right", "2"}}, "expected carry >= 2 with it"},
      {{{"task", "prefix-sums"}, {"carry_grace", "1"}}, "expected carry >= 2 with it"},
      {{{"task", "prefix-sums"}, {"carry_over", "1"}}, "expected carry >= 2 with it"},
      {{{"task", "prefix-sums"}, {"rest_after", "1"}}, "expected rest-weight > 0 with it"},
      {{{"rest_weight", "1"}}, "expected a task of problems with it"}};
  for (const auto& [given, says] : idle)
    EXPECT_SAYS(testing::error_of([&] { assigned(given); }), says);
  for (const Assignments& used :
       {Assignments{{"pretrain_depth", "3"}, {"pretrain_steps", "1"}},
        {{"jacobian_frequency", "1"}, {"jacobian_weight", "0.1"}},
        {{"gradient", "phantom"}, {"fewer_steps", "2"}},
        {{"solver_decay", "0.9"}},
        {{"gradient_solver_decay", "0.9"}, {"gradient_solver_scope", "causal"}},
        {{"task", "sudoku"}, {"cell", "groups"}, {"data", "b.csv"}, {"task_givens", "9"}},
        {{"task", "sudoku"}, {"cell", "maxsat"}, {"gradient_max_steps", "9"}, {"max_steps", "9"}},
        {{"task", "parity"}, {"cell", "maxsat-chain"}, {"gradient_rel_tol", "0.1"}},
        {{"task", "sudoku"}, {"cell", "optnet"}, {"rel_tol", "1e-9"}},
        {{"eval_length", "9"}, {"task", "bytes"}}})
    EXPECT_NO_THROW(assigned(used));
}

/// Paper, Tables 2 and 3: millions of parameters, in all and without the embedding.
struct Published {
  const char* file;
  double total, without_embedding;
};

class PublishedSizes : public ::testing::TestWithParam<Published> {};

TEST_P(PublishedSizes, AreThoseOfThePaper) {
  const fs::path path = fs::path(DEQ_SOURCE_DIR) / "runs" / GetParam().file;
  TrainOptions options;
  assign_options(options, parse_toml(read_file(path, 1 << 20), path.string()));
  const LanguageModel model(options.model, options.task->known_vocabulary());
  const double total = double(model.parameter_count(true)) / 1e6;
  const double rest = double(model.parameter_count(false)) / 1e6;
  EXPECT_NEAR(total, GetParam().total, 0.01 * GetParam().total);
  EXPECT_NEAR(rest, GetParam().without_embedding, 0.01 * GetParam().without_embedding);
}

INSTANTIATE_TEST_SUITE_P(
    Runs, PublishedSizes,
    ::testing::Values(Published{"ptb-deq-trellisnet.toml", 24, 20},
                      Published{"wikitext103-deq-trellisnet.toml", 180, 45},
                      Published{"wikitext103-deq-transformer-small.toml", 138, 4.5},
                      Published{"wikitext103-deq-transformer-medium.toml", 172, 43},
                      Published{"wikitext103-deq-transformer-adaptive.toml", 110, 70}),
    [](const auto& info) {
      std::string name = fs::path(info.param.file).stem().string();
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

TEST(Runs, EveryConfigurationIsValid) {
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(DEQ_SOURCE_DIR) / "runs")) {
    if (entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().string());
    TrainOptions options;
    const Assignments given = parse_toml(read_file(entry.path(), 1 << 20), entry.path().string());
    EXPECT_NO_THROW(assign_options(options, given));
    EXPECT_NO_THROW(settle(options, given));
  }
}

TEST(DryRun, TakesOneStepOfAnyNetwork) {
  const Assignments sizes{{"task_vocabulary", "50"},
                          {"batch", "2"},
                          {"length", "6"},
                          {"history", "4"},
                          {"rel_tol", "1e-2"}};
  for (const Assignments& network :
       {Assignments{{"cell_width", "8"}, {"cell_heads", "2"}, {"cell_inner", "8"}},
        Assignments{{"cell", "trellisnet"},
                    {"cell_hidden", "5"},
                    {"cell_output", "3"},
                    {"subsequence", "2"},
                    {"jacobian_weight", "1"}}}) {
    Assignments given = sizes;
    given.insert(network.begin(), network.end());
    const DryRun run = dry_run(assigned(given));
    EXPECT_EQ(run.tokens, 12);
    EXPECT_EQ(run.vocabulary, 50);
    EXPECT_GT(run.parameters, run.parameters_without_embedding);
    EXPECT_GT(run.activation_bytes, 12 * 8 * 4);
    EXPECT_GT(run.forward.evaluations, 0);
    EXPECT_GT(run.adjoint.evaluations, 0);
    EXPECT_NEAR(run.loss, std::log(50.0), 1);
  }
  EXPECT_THROW(dry_run(assigned({{"cell_width", "8"}})), Error);  // no vocabulary
  const DryRun levels = dry_run(assigned({{"cell_width", "8"},
                                          {"cell_heads", "2"},
                                          {"depth", "3"},
                                          {"task", "copy-memory"},
                                          {"task_delay", "5"},
                                          {"batch", "4"}}));
  EXPECT_EQ(levels.tokens, 4 * 25);  // whole sequences
  EXPECT_EQ(levels.vocabulary, 10);
  EXPECT_EQ(levels.forward.evaluations, 3);
  EXPECT_EQ(levels.adjoint.evaluations, 0);
}

TEST(TrainOptions, ATransformerOverGridsHasNoOrder) {
  const auto settled = [](Assignments given) {
    given["task"] = "mazes";
    TrainOptions options;
    assign_options(options, given);
    settle(options, given);
    return options.model.cell;
  };
  const CellOptions cell = settled({});
  EXPECT_FALSE(cell->is_causal());
  EXPECT_EQ(cell.get_if<Transformer>()->dimensions, 2);
  EXPECT_SAYS(testing::error_of([&] {
                make_cell(settled({{"cell_causal", "true"}}));
              }),
              "cell-causal = true");
}

}  // namespace
}  // namespace deq
