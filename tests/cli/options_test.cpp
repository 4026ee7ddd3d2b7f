// What a command is told and cannot use is an error; how a model is solved at evaluation is not
// what it was trained with.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using testing::expect_one_error_line;
using testing::kCopy;
using testing::kPlain;
using testing::kPlainSequences;
using testing::run_deq;
using testing::Scratch;

class OptionsOfARun : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    testing::spill(*scratch_ / "text.txt", testing::small_text());
    make("copies", kCopy + std::string(" --steps 2") + kPlainSequences);
    make("levels", on_text() + " --depth 2");
  }
  static void TearDownTestSuite() { delete scratch_; }
  static void make(const std::string& name, const std::string& options) {
    ASSERT_EQ(run_deq("train " + at(name) + options + " 2>&1").exit_code, 0);
  }
  static std::string at(const std::string& name) { return (*scratch_ / name).string(); }
  static std::string on_text() {
    return " --data " + at("text.txt") + " --task bytes --steps 2 --init-std 0.5" + kPlain;
  }

  static Scratch* scratch_;
};
Scratch* OptionsOfARun::scratch_ = nullptr;

TEST_F(OptionsOfARun, EvaluationObeysItsOwnSolver) {
  const std::string run = at("unrolled");
  const auto made =
      run_deq("train " + run + on_text() + " --gradient unrolled --gradient-steps 7 2>&1");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  EXPECT_SAYS(made.text, "evaluations 7 ");
  const auto evaluations = [&](const std::string& flags) {
    const auto row =
        nlohmann::json::parse(run_deq("eval " + run + " --json --rel-tol 0 " + flags).text);
    return row.at("evaluations").get<double>();
  };
  for (const int steps : {3, 20}) {
    const std::string limit = "--max-steps " + std::to_string(steps);
    for (const char* solver : {"", " --solver picard"}) {
      EXPECT_GE(evaluations(limit + solver), steps) << solver;
      EXPECT_LE(evaluations(limit + solver), steps + 1) << solver;
    }
  }
  const auto row =
      nlohmann::json::parse(testing::slurp(at("unrolled") + "/metrics.jsonl")
                                .substr(0, testing::slurp(run + "/metrics.jsonl").find('\n')));
  EXPECT_FALSE(row.contains("adjoint_residual")) << row.dump();
}

TEST_F(OptionsOfARun, WhatChangesNothingIsAnError) {
  const std::string run = at("run"), copies = at("copies"), levels = at("levels");
  ASSERT_EQ(run_deq("train " + run + on_text() + " 2>&1").exit_code, 0);
  // No gradient is taken there.
  for (const char* command : {"eval ", "generate ", "measure decoding "}) {
    for (const char* flag : {"--gradient unrolled", "--gradient-max-steps 3"}) {
      const auto refused = run_deq(command + run + " " + flag + " 2>&1 >/dev/null");
      EXPECT_EQ(refused.exit_code, 2) << command << flag;
      EXPECT_EQ(refused.text.rfind("error: ", 0), 0u) << refused.text;
    }
  }
  expect_one_error_line("eval " + run + " --solver-scope sample --solver-decay 0.9",
                        "solver-decay = 0.9: scope sample weighs its positions alike");
  expect_one_error_line("eval " + copies + " --eval-length 5", "are never cut");
  expect_one_error_line("eval " + copies + " --eval-lanes 5", "are never cut");
  EXPECT_EQ(run_deq("eval " + copies + " --check-leak --eval-lanes 5").exit_code, 0);
  expect_one_error_line("eval " + levels + " --max-steps 5", "has no equilibrium");
  for (const char* drawn : {"temperature 0.5", "top-k 3", "top-p 0.5", "seed 4"})
    expect_one_error_line("generate " + run + " --prompt a --greedy --" + drawn,
                          "nothing is drawn with greedy");
  for (const char* drawn : {"temperature 0.5", "top-p 0.5", "seed 4"})
    expect_one_error_line("generate " + run + " --prompt a --top-k 1 --" + drawn,
                          "nothing is drawn with top-k = 1");
  expect_one_error_line("generate " + run + " --prompt a --top-k 256",
                        "top-k = 256: it leaves out none of the 256 tokens there are");
  const std::string fresh = "train " + at("fresh") + on_text();
  expect_one_error_line(fresh + " --pretrain-depth 3", "pretrain-steps >= 1");
  expect_one_error_line(fresh + " --jacobian-frequency 1", "jacobian-weight > 0");
  expect_one_error_line(fresh + " --jacobian-growth-every 5", "jacobian-weight > 0");
  expect_one_error_line(fresh + " --gradient unrolled --fewer-steps 2",
                        "solves nothing in training");
  expect_one_error_line(fresh + " --gradient-solver-decay 0.9", "weighs its positions alike");
  expect_one_error_line("train " + at("fresh") + kCopy + " --length 9", "never cut");
}

TEST_F(OptionsOfARun, WhatIsOfAnotherSplitIsAnError) {
  const std::string sums = at("sums"), nine = "--split 9 ", few = " --task-test 5";
  ASSERT_EQ(run_deq("train " + sums +
                    " --task prefix-sums --task-length 6 --task-test-lengths 9 --task-train 64"
                    " --task-valid 20 --task-test 8 --cell shift --cell-width 8 --cell-inner 8"
                    " --solver sweep --steps 2 --threads 1 2>&1")
                .exit_code,
            0);
  const auto refused = [&](const std::string& arguments, const std::string& says) {
    expect_one_error_line("eval " + sums + " " + arguments, says);
  };
  refused("--task-train 65", "task-train = 65: the problems of split test are the same without it");
  refused("--task-pool 5", "task-pool = 5: the problems of split test");
  refused(nine + "--task-valid 5" + few, "task-valid = 5: the problems of split 9");
  refused(nine + "--task-length 5", "task-length = 5: the problems of split 9");
  refused("--split valid" + few, "task-test = 5: the problems of split valid");
  refused("--task-test-lengths 9,12", "task-test-lengths = 9,12: the problems of split test");
  for (const std::string& used :
       {nine + few, std::string("--split valid --task-valid 5 --task-train 64"),
        std::string("--split 12 --task-test-lengths 12 --task-seed 4")})
    EXPECT_EQ(run_deq("eval " + sums + " " + used + " 2>&1").exit_code, 0) << used;
}

TEST_F(OptionsOfARun, FewerGivensThanBoardsStandOnAreAnError) {
  const std::string boards = at("boards");
  ASSERT_EQ(
      run_deq("train " + boards +
              " --task sudoku --task-side 4 --task-pool 9 --task-train 8 --task-valid 4"
              " --task-test 4 --cell conv --cell-width 8 --batch 4 --steps 1 --threads 1 2>&1")
          .exit_code,
      0);
  for (const char* split : {"train", "valid", "test"})
    expect_one_error_line("eval " + boards + " --task-givens 3 --split " + split,
                          std::string("task-givens = 3: the problems of split ") + split);
  for (const char* used : {"--task-givens 8", "--task-pool 8", "--task-valid 3"})
    EXPECT_EQ(run_deq("eval " + boards + " " + used + " 2>&1").exit_code, 0) << used;
}

TEST_F(OptionsOfARun, WhatCannotGoOnLeavesTheRunAsItWas) {
  const std::string run = at("goes-on");
  ASSERT_EQ(run_deq("train " + run + on_text() + " 2>&1").exit_code, 0);
  const auto files = [&] {
    std::map<std::string, std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(run))
      found[entry.path().filename().string()] = testing::slurp(entry.path());
    return found;
  };
  const auto before = files();
  const std::pair<const char*, std::string> bad[] = {
      {"--steps 1", "steps = 1: run '" + run + "' has made 2; expected as many or more"},
      {"--cell-width 24", "cell-width = 24: the weights of run '" + run +
                              "' have other shapes; "
                              "expected 16, the run's"},
      {"--cell-inner 30", "cell-inner = 30: the weights"},
      {"--cell gru --depth 1", "cell = gru: the weights"},
      {"--init-std 0.1", "init-std = 0.1: the weights of run '" + run + "' began with 0.5"}};
  for (const auto& [option, says] : bad) {
    expect_one_error_line("train " + run + " --resume " + option, says);
    EXPECT_EQ(files(), before) << option;
  }
  const std::string metrics = run + "/metrics.jsonl", whole = testing::slurp(metrics);
  testing::spill(metrics, whole + "{\"step\": 2\n");
  const auto broken = files();
  expect_one_error_line(
      "train " + run + " --resume --steps 3",
      "metrics.jsonl:" + std::to_string(std::count(whole.begin(), whole.end(), '\n') + 1) + ": '{");
  EXPECT_EQ(files(), broken);
  testing::spill(metrics, whole);
  EXPECT_EQ(run_deq("train " + run + " --resume --steps 3 --init-std 0.50 2>&1").exit_code, 0);
}

TEST_F(OptionsOfARun, WhatATaskDoesNotHaveIsAnError) {
  const std::string to = "train " + at("none");
  std::filesystem::create_directory(at("split"));
  std::string boards = "puzzle,solution\n";
  for (int i = 0; i < 9; ++i) boards += "123434122143432.,1234341221434321\n";
  testing::spill(*scratch_ / "boards.csv", boards);
  const std::string board = " --task sudoku --task-side 4 --cell conv",
                    data = " --data " + at("boards.csv") + " --task-valid 2 --task-test 2";
  const std::pair<std::string, std::string> bad[] = {
      {board + " --task-givens 17", "task-givens = 17: a board has 16 places"},
      {board + data + " --task-boards 6",
       "task-boards = 6: of the 9 boards of '" + at("boards.csv") + "' 5 are left to train on"},
      {" --task masked --data " + at("text.txt") + " --task-length 8 --task-longest 9 --cell conv",
       "task-longest = 9: a piece has task-length = 8 characters"},
      {" --task parity --task-train 9 --cell conv", "task-train = 9: an epoch has the same"},
      {" --task bytes --data " + at("split") + " --task-valid-share 0.1",
       "task-valid-share = 0.1: '" + at("split") + "' is a folder"},
      {on_text() + " --checkpointed true", "checkpointed = true: an equilibrium has no levels"},
      {on_text() + " --tied false", "tied = false: an equilibrium has no levels"},
      {on_text() + " --embedding-div-val 2", "embedding-div-val = 2: there is one cluster"}};
  for (const auto& [options, says] : bad) expect_one_error_line(to + options, says);
  EXPECT_FALSE(std::filesystem::exists(at("none")));
  expect_one_error_line("measure cost " + at("copies") + " --decode 5",
                        "decode = 5: task copy-memory answers whole problems");
  expect_one_error_line("measure cost " + at("levels") + " --max-steps 5",
                        "max-steps = 5: an explicit network has no equilibrium");
  expect_one_error_line("measure layers --epochs 2", "epochs = 2: nothing is trained");
}

// 0% of the adjoint's rows converge in one step: a gradient that is none must not look like one.
TEST_F(OptionsOfARun, AnAdjointThatDidNotConvergeIsSeen) {
  const auto text = run_deq("train " + at("adjoint") + on_text() +
                            " --gradient-max-steps 1 --gradient-rel-tol 1e-9 2>&1")
                        .text;
  EXPECT_SAYS(text, "+1, adjoint 0% converged, residual ");
  const auto converged = run_deq("train " + at("converged") + on_text() +
                                 " --gradient-max-steps 60 --gradient-rel-tol 1e-2 2>&1")
                             .text;
  EXPECT_SAYS(converged, " evaluations ");
  EXPECT_EQ(converged.find("adjoint"), std::string::npos) << converged;
  ASSERT_EQ(run_deq("report " + at("adjoint") + " --solves 0").exit_code, 0);
  EXPECT_SAYS(testing::slurp(at("adjoint") + "/report.html"), "<th>adjoint converged");
  EXPECT_SAYS(testing::slurp(at("adjoint") + "/report.html"), "<td class=n>0.00%");
}

}  // namespace
}  // namespace deq
