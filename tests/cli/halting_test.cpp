// Runs that are trained to halt, as a user trains, evaluates and sweeps them.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "deq/files/safetensors.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;

const std::string kCommon =
    " --task prefix-sums --task-length 6 --task-test-lengths 9 --task-valid 20 --task-test 33 "
    "--cell conv --cell-width 8 --cell-convolutions 1 --init-std 0.3 --rate 0.01 --steps 40 "
    "--eval-every 40 --threads 1 --eval-batch 8 --log-every 10";
const std::string kUnrolled =
    " --solver picard --max-steps 24 --gradient unrolled --gradient-steps 6";

/// Runs of each learned rule, of levels, and without a rule; made once.
class HaltingTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    const auto train = [](const std::string& name, const std::string& how) {
      const auto result = run_deq("train " + at(name) + kCommon + how + " 2>&1");
      ASSERT_EQ(result.exit_code, 0) << result.text;
    };
    train("act", kUnrolled + " --halting act --halting-bias -1");
    train("ponder", kUnrolled + " --halting ponder --halting-bias -1");
    train("head", kUnrolled + " --halting head --halting-bias 0");
    train("levels", " --depth 6 --halting ponder --halting-bias -1");
    train("plain", kUnrolled);
  }
  static void TearDownTestSuite() { delete scratch_; }
  static std::string at(const std::string& name) { return (*scratch_ / name).string(); }

  static json run(const std::string& arguments) {
    const auto result = run_deq(arguments + " --json --threads 1 2>/dev/null");
    EXPECT_EQ(result.exit_code, 0) << arguments << "\n" << result.text;
    return json::parse(result.text);
  }

  static Scratch* scratch_;
};
Scratch* HaltingTest::scratch_ = nullptr;

TEST_F(HaltingTest, EvalHaltsByTheRunsRuleUnlessToldOtherwise) {
  for (const std::string name : {"act", "ponder", "head", "levels"}) {
    const json own = run("eval " + at(name));
    EXPECT_EQ(own["halting"], name == "levels" ? "ponder" : name);
    EXPECT_GE(own["halting_steps"].get<double>(), 1);
    EXPECT_LE(own["halting_steps"].get<double>(), name == "levels" ? 6 : 24);
    EXPECT_TRUE(own["residual"].is_number());
    const json none = run("eval " + at(name) + " --halting none");
    EXPECT_FALSE(none.contains("halting")) << none;
    const json early = run("eval " + at(name) + " --halting-threshold 0.001");
    EXPECT_LT(early["halting_steps"], own["halting_steps"]) << name;
    const json residual = run("eval " + at(name) + " --halting residual --halting-threshold 0.3");
    EXPECT_EQ(residual["halting"], "residual");
    EXPECT_NE(residual["halting_steps"], own["halting_steps"]);
    for (const char* number : {"exact_share", "halting_steps", "halted_share"})
      EXPECT_EQ(run("eval " + at(name) + " --eval-batch 1")[number], own[number]) << name;
  }
  EXPECT_FALSE(run("eval " + at("plain")).contains("halting"));
  const auto text = run_deq("eval " + at("head") + " --threads 1 2>/dev/null").text;
  const json head = run("eval " + at("head"));
  EXPECT_PRED_FORMAT2(::testing::IsSubstring,
                      fmt::format("{:.1f} evaluations each", head["halting_steps"].get<double>()),
                      text);
}

TEST_F(HaltingTest, WeightsOfTheUnitStandInTheCheckpoint) {
  const auto names = [](const fs::path& run) {
    return load_tensors(run / "best.safetensors").tensors;
  };
  EXPECT_TRUE(names(at("act")).count("halting.weight"));
  EXPECT_EQ(names(at("act")).size(), names(at("plain")).size() + 2);
  const std::string config = testing::slurp(fs::path(at("plain")) / "config.toml");
  EXPECT_EQ(config.find("halting"), std::string::npos);
}

TEST_F(HaltingTest, ASweepDrawsTheRunsRuleBesideTheOthers) {
  const std::string how = " --sets 9 --problems 0 --starts 1 --paths 0 --pictures 0 --limits 4,24 ";
  const json all = run("sweep " + at("act") + " " + at("head") + " " + at("plain") + " " +
                       at("levels") + how + "--out " + at("swept"));
  const auto rules = [&](size_t run) {
    std::vector<std::string> names;
    for (const json& rule : all["runs"][run]["sets"][0]["halting"]) names.push_back(rule["rule"]);
    return names;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(rules(0), (Names{"residual:1e-2", "change:1e-2", "act:0.99"}));
  EXPECT_EQ(rules(1), (Names{"residual:1e-2", "change:1e-2", "head:0.5"}));
  EXPECT_EQ(rules(2), (Names{"residual:1e-2", "change:1e-2"}));
  EXPECT_EQ(rules(3), (Names{"residual:1e-2", "change:1e-2", "ponder:0.5"}));
  const json own = run("eval " + at("act") + " --split 9 --max-steps 24");
  const json& swept = all["runs"][0]["sets"][0]["halting"][2];
  EXPECT_EQ(swept["accuracy"], own["exact_share"]);
  EXPECT_NEAR(swept["evaluations"].get<double>(), own["halting_steps"].get<double>(), 1e-9);
  const json& verdicts = swept["verdicts"];
  EXPECT_NEAR(
      (verdicts["converged_right"].get<double>() + verdicts["converged_wrong"].get<double>()) / 33,
      own["converged_share"].get<double>(), 1e-9);
  const std::string page = testing::slurp(fs::path(at("swept")) / "sweep.html");
  for (const char* point : {"act:0.99, act", "head:0.5, head", "ponder:0.5, levels"})
    EXPECT_NE(page.find(point), std::string::npos) << point;
  const json other =
      run("sweep " + at("ponder") + how + "--halting trained:0.1,trained:0.9 --out " +
          at("thresholds"))["runs"][0]["sets"][0]["halting"];
  EXPECT_EQ(other[0]["rule"], "ponder:0.1");
  EXPECT_LT(other[0]["evaluations"], other[1]["evaluations"]);
}

TEST_F(HaltingTest, BadInputIsOneLine) {
  expect_one_error_line("train " + at("x") + kCommon + " --depth 3 --tied false --halting act",
                        "halting = act with tied = false");
  expect_one_error_line(
      "train " + at("x") + kCommon + kUnrolled + " --halting act --halting-cost -1",
      "halting-cost = -1");
  expect_one_error_line(
      "train " + at("x") + kCommon + kUnrolled + " --halting ponder --halting-prior 1",
      "halting-prior = 1");
  expect_one_error_line("train " + at("x") + kCommon + kUnrolled + " --halting-cost 1",
                        "halting-cost");
  expect_one_error_line("eval " + at("act") + " --halting head", "the model was trained with act");
  expect_one_error_line("eval " + at("act") + " --solver anderson --solver-scope sample",
                        "halting = act with solver anderson");
  for (const char* of_training : {"act --halting-cost 1", "act --halting-bias 1",
                                  "ponder --halting-prior 0.5", "head --halting-weight 2"})
    expect_one_error_line("eval " + at(of_training), "it is of training");
  expect_one_error_line("sweep " + at("act") + " --halting trained:2 --out " + at("bad"),
                        "halting-threshold = 2");
  EXPECT_FALSE(fs::exists(at("x")));
}

}  // namespace
}  // namespace deq
