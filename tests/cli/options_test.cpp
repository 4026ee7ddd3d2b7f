// What a command is told and cannot use is an error; how a model is solved at evaluation is not
// what it was trained with.
#include <gtest/gtest.h>

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
  }
  static void TearDownTestSuite() { delete scratch_; }
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
  ASSERT_EQ(run_deq("train " + copies + kCopy + " --steps 2" + kPlainSequences + " 2>&1").exit_code,
            0);
  ASSERT_EQ(run_deq("train " + levels + on_text() + " --depth 2 2>&1").exit_code, 0);
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
                          "nothing is drawn with --greedy");
  const std::string fresh = "train " + at("fresh") + on_text();
  expect_one_error_line(fresh + " --pretrain-depth 3", "pretrain-steps >= 1");
  expect_one_error_line(fresh + " --jacobian-frequency 1", "jacobian-weight > 0");
  expect_one_error_line(fresh + " --jacobian-growth-every 5", "jacobian-weight > 0");
  expect_one_error_line(fresh + " --gradient unrolled --fewer-steps 2",
                        "solves nothing in training");
  expect_one_error_line(fresh + " --gradient-solver-decay 0.9", "weighs its positions alike");
  expect_one_error_line("train " + at("fresh") + kCopy + " --length 9", "never cut");
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
