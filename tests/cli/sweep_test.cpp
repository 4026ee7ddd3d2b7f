// deq sweep as a user runs it: its numbers beside those of deq eval, its page, and bad input.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "deq/files/folder_lock.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;

/// Small runs of one task: two seeds, trained unrolled, and a network of levels; made once.
class SweepTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    const std::string common =
        " --task prefix-sums --task-length 6 --task-test-lengths 5,9 --task-valid 20 --task-test "
        "33 "
        "--cell conv --cell-width 8 --cell-convolutions 1 --init-std 0.3 --rate 0.01 --steps 60 "
        "--eval-every 60 --threads 1 --eval-batch 8";
    const std::string unrolled =
        " --solver picard --max-steps 40 --gradient unrolled --gradient-steps 4";
    ASSERT_EQ(run_deq("train " + at("a") + common + unrolled + " 2>&1").exit_code, 0);
    ASSERT_EQ(run_deq("train " + at("b") + common + unrolled + " --seed 2 2>&1").exit_code, 0);
    ASSERT_EQ(run_deq("train " + at("levels") + common + " --depth 3 2>&1").exit_code, 0);
    const std::string shift =
        " --task prefix-sums --task-length 6 --task-test-lengths 5 --steps 20 "
        "--task-valid 20 --task-test 20 --cell shift --cell-width 8 --cell-inner 8 --init-std 0.5 "
        "--solver sweep --eval-every 20 --threads 1";
    ASSERT_EQ(run_deq("train " + at("recurrent") + shift + " 2>&1").exit_code, 0);
    const std::string maze =
        " --task mazes --task-size 5 --task-test-sizes 7 --task-valid 8 --task-test 9 --steps 3 "
        "--cell conv --cell-dimensions 2 --cell-width 8 --threads 1 --solver anderson "
        "--max-steps 5 --eval-every 3";
    ASSERT_EQ(run_deq("train " + at("maze") + maze + " 2>&1").exit_code, 0);
  }
  static void TearDownTestSuite() { delete scratch_; }
  static std::string at(const std::string& name) { return (*scratch_ / name).string(); }

  /// What a sweep prints as JSON.
  static json sweep(const std::string& arguments) {
    const auto result = run_deq("sweep " + arguments + " --json --threads 1 2>/dev/null");
    EXPECT_EQ(result.exit_code, 0) << arguments << "\n" << result.text;
    return json::parse(result.text);
  }
  static json eval(const std::string& arguments) {
    const auto result = run_deq("eval " + arguments + " --json --threads 1 2>/dev/null");
    EXPECT_EQ(result.exit_code, 0) << arguments << "\n" << result.text;
    return json::parse(result.text);
  }

  static Scratch* scratch_;
};
Scratch* SweepTest::scratch_ = nullptr;

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST_F(SweepTest, EveryLimitIsWhatEvalSaysOfIt) {
  const json found =
      sweep(at("a") + " --sets test,9 --problems 0 --starts 1 --paths 0 --pictures 0 --out " +
            at("every-limit"));
  const json& run = found["runs"][0];
  EXPECT_EQ(run["trained_steps"], 4) << "unrolled steps, not the solver's";
  ASSERT_EQ(run["sets"].size(), 2u);
  for (const json& set : run["sets"]) {
    ASSERT_EQ(set["limits"].size(), 5u);
    int64_t expected = 4;
    for (const json& limit : set["limits"]) {
      EXPECT_EQ(limit["max_steps"], expected);
      expected *= 2;
      const json own = eval(at("a") + " --split " + set["name"].get<std::string>() +
                            " --max-steps " + limit["max_steps"].dump());
      EXPECT_EQ(limit["accuracy"].get<double>(), own["exact_share"].get<double>());
      EXPECT_NEAR(limit["places_right"].get<double>(), own["right_share"].get<double>(), 1e-12);
      const json& verdicts = limit["verdicts"];
      const int64_t converged =
          verdicts["converged_right"].get<int64_t>() + verdicts["converged_wrong"].get<int64_t>();
      EXPECT_NEAR(double(converged) / 33, own["converged_share"].get<double>(), 1e-12);
    }
  }
}

TEST_F(SweepTest, OfAnotherSolverToo) {
  const std::string solver = " --solver anderson --solver-scope sample --rel-tol 1e-2";
  const json found = sweep(at("maze") + solver + " --limits 2,3,11 --problems 0 --sets 7 " +
                           "--starts 1 --paths 0 --pictures 0 --out " + at("anderson"));
  for (const json& limit : found["runs"][0]["sets"][0]["limits"]) {
    const json own =
        eval(at("maze") + solver + " --split 7 --max-steps " + limit["max_steps"].dump());
    EXPECT_EQ(limit["accuracy"].get<double>(), own["exact_share"].get<double>());
    EXPECT_NEAR(limit["places_right"].get<double>(), own["right_share"].get<double>(), 1e-12);
  }
}

TEST_F(SweepTest, NoAnswerDependsOnTheBatch) {
  const auto each = [&](const std::string& batch) {
    json sets = sweep(at("a") + " --limits 3,30 --pictures 0 --starts 2 --eval-batch " + batch +
                      " --out " + at("batch-" + batch))["runs"][0]["sets"];
    for (json& set : sets) {
      for (json& limit : set["limits"]) {
        limit.erase("seconds");
        for (const char* rounded :
             {"residual_right", "residual_wrong", "worst_position_right", "worst_position_wrong"})
          limit.erase(rounded);
      }
      for (const char* rounded : {"residual", "worst_position"}) set["each_problem"].erase(rounded);
      for (json& path : set["paths"]) {
        for (const char* rounded : {"distance", "cosine"}) path.erase(rounded);
      }
    }
    return sets;
  };
  EXPECT_EQ(each("64"), each("1"));
}

/// Problems are of two sizes in turn: the one before in a batch is not the one before of that size.
TEST_F(SweepTest, AnotherProblemIsOfNoBatch) {
  std::string lines;
  for (int i = 0; i < 18; ++i) lines += i % 2 ? "1 0 1\t1 1 0\n" : "0 1 1 0 1\t0 1 0 0 1\n";
  testing::spill(at("pairs.tsv"), lines);
  const std::string pairs = " --task pairs --data " + at("pairs.tsv") +
                            " --task-valid-share 0.2 --task-test-share 0.4 --cell conv --steps 2"
                            " --cell-width 8 --solver picard --max-steps 5 --batch 2 --threads 1";
  ASSERT_EQ(run_deq("train " + at("pairs") + pairs + " 2>&1").exit_code, 0);
  for (const char* batch : {"1", "2", "64"}) {
    const json paths = sweep(at("pairs") + " --pictures 0 --starts 1 --eval-batch " + batch +
                             " --out " + at("pairs-out"))["runs"][0]["sets"][0]["paths"];
    EXPECT_EQ(paths[0]["problems"], 7) << batch;
    EXPECT_EQ(paths[4]["problems"], 7) << batch;
  }
}

TEST_F(SweepTest, WhatIsDoneCostsNoMore) {
  const json set =
      sweep(at("a") + " --limits 4,400 --rel-tol 0.2 --sets 9 --problems 0 --paths 0 --out " +
            at("cost"))["runs"][0]["sets"][0];
  double sum = 0;
  for (const json& one : set["each_problem"]["evaluations"]) sum += one.get<double>();
  const json& last = set["limits"][1];
  EXPECT_NEAR(last["evaluations"].get<double>(), sum / 33, 1e-9);
  EXPECT_LT(last["evaluations"].get<double>(), 400) << "some converge";
  EXPECT_NEAR(last["operations"].get<double>() / last["evaluations"].get<double>(),
              2.0 * 9 * 8 * 8 * 3, 1e-6);
  const json& breadth = set["starts"];
  ASSERT_EQ(breadth.size(), 3u * 2) << "1, 2 and 4 starts at two limits";
  for (size_t limit = 0; limit < 2; ++limit) {
    EXPECT_LE(breadth[limit]["any"], breadth[2 + limit]["any"]) << "more starts, more right ones";
    EXPECT_LE(breadth[2 + limit]["any"], breadth[4 + limit]["any"]);
    EXPECT_EQ(breadth[limit]["any"], breadth[limit]["accuracy"]) << "one start chooses nothing";
    EXPECT_EQ(breadth[limit]["any"], breadth[limit]["majority"]);
  }
}

TEST_F(SweepTest, HaltingRulesEndSolvesAndFJudgesThem) {
  const std::string how =
      " --rel-tol 1e-4 --sets 9 --problems 0 --starts 1 --paths 0 --pictures 0 ";
  const json set = sweep(at("a") + how + "--limits 60 --halting residual:0.1,change:1,change:1e-9" +
                         " --out " + at("halting"))["runs"][0]["sets"][0];
  const json& rules = set["halting"];
  ASSERT_EQ(rules.size(), 3u);
  EXPECT_EQ(rules[0]["rule"], "residual:0.1");
  const json loose =
      sweep(at("a") + " --rel-tol 0.1 --sets 9 --problems 0 --starts 1 --paths 0 " +
            "--pictures 0 --halting none --limits 60 --out " + at("loose"))["runs"][0]["sets"][0];
  EXPECT_TRUE(loose["halting"].empty());
  const json& by_tolerance = loose["limits"][0];
  EXPECT_EQ(rules[0]["accuracy"], by_tolerance["accuracy"]) << "the same as with that tolerance";
  EXPECT_EQ(rules[0]["evaluations"], by_tolerance["evaluations"]);
  EXPECT_EQ(rules[1]["evaluations"], 4.0)
      << "it may move as much as it likes, twice in a row; and the state behind that is judged";
  const json& verdicts = rules[1]["verdicts"];
  EXPECT_EQ(verdicts["converged_right"].get<int>() + verdicts["converged_wrong"].get<int>(), 0)
      << "three evaluations do not converge, whatever the rule says";
  EXPECT_GE(rules[2]["evaluations"].get<double>(), rules[1]["evaluations"].get<double>());
  const auto wrong = [&](const std::string& halting, const std::string& says) {
    expect_one_error_line(
        "sweep " + at("a") + " --halting " + halting + " --out " + at("wrong-halting"), says);
  };
  wrong("ponder:1", "unknown rule 'ponder:1'; known: residual, change");
  wrong("change", "halting = change; expected a threshold above 0");
  wrong("change:0", "halting = change:0");
  wrong("residual:x", "halting = residual:x");
}

TEST_F(SweepTest, ARecurrenceHasOneStateWhereverItStarts) {
  const json set = sweep(at("recurrent") + " --sets 5 --starts 1 --paths 19 --out " +
                         at("paths"))["runs"][0]["sets"][0];
  const json& paths = set["paths"];
  ASSERT_EQ(paths.size(), 5u);
  for (size_t from = 0; from < 3; ++from) {
    EXPECT_EQ(paths[from]["same_answer"], 1.0) << paths[from];
    EXPECT_EQ(paths[from]["converged"], 1.0);
    EXPECT_EQ(paths[from]["problems"], 19);
    EXPECT_LT(paths[from]["distance"], 1e-5);
    EXPECT_GT(paths[from]["cosine"], 0.99999);
  }
  EXPECT_GT(paths[4]["distance"], 1e-2) << "states of different problems differ";
  EXPECT_LT(paths[4]["cosine"], paths[0]["cosine"]);
}

/// A board can hold its solution, and bits cannot hold their sums.
TEST_F(SweepTest, ASolutionHasAStateWhereProblemsCanHoldIt) {
  const std::string board =
      " --task sudoku --task-side 4 --task-pool 40 --task-valid 8 --task-test 9 --steps 3 --cell "
      "conv --cell-dimensions 2 --cell-width 8 --threads 1 --solver picard --max-steps 5";
  ASSERT_EQ(run_deq("train " + at("board") + board + " 2>&1").exit_code, 0);
  const auto solution = [&](const std::string& run) {
    return sweep(at(run) + " --sets test --limits 3 --starts 1 --pictures 0 --out " +
                 at("solution-" + run))["runs"][0]["sets"][0]["paths"][3];
  };
  EXPECT_EQ(solution("board")["from"], "its solution's state");
  EXPECT_EQ(solution("board")["problems"], 9);
  EXPECT_EQ(solution("recurrent")["problems"], 0);
}

TEST_F(SweepTest, AStateThatDoesNotConvergeIsNotItsOwn) {
  const json set = sweep(at("a") + " --limits 3 --rel-tol 1e-7 --sets 5 --starts 1 --out " +
                         at("moving"))["runs"][0]["sets"][0];
  EXPECT_EQ(set["paths"][2]["converged"], 0.0);
  EXPECT_GT(set["paths"][2]["distance"], 1e-3);
}

TEST_F(SweepTest, APageHasEveryRunItsChartsAndItsPictures) {
  const std::string out = at("page"), named = at("a <b>'");
  fs::copy(at("a"), named, fs::copy_options::recursive);
  const auto result = run_deq("sweep \"" + named + "\" " + at("b") + " " + at("levels") +
                              " --out '" + out + "' --problems 0 --threads 1 2>/dev/null");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  for (const char* title :
       {"## All runs together", "\n| 9 | 16 |", "## Accuracy against the step limit",
        "## Path independence", "| levels | 9 | depth 3 |", "| b | test | 4 (trained) |"})
    EXPECT_EQ(count(result.text, title), 1u) << title;
  const std::string page = testing::slurp(fs::path(out) / "sweep.html");
  EXPECT_GE(count(page, "<svg"), 3u + 2 + 2 + 3);
  EXPECT_EQ(count(page, "<figure class=problem>"), 3u * 3);
  EXPECT_EQ(count(page, "limit in training</text>"), 3u) << "marked on each axis of cost";
  EXPECT_GE(count(page, "polyline class='s0 thin'"), 2u) << "a line for each seed";
  EXPECT_GE(count(page, "polyline class='s0 thick'"), 1u) << "and one for their mean";
  EXPECT_EQ(count(page, "a <b>"), 0u) << "the name of a run is not escaped";
  EXPECT_GE(count(page, "a &lt;b&gt;&#39;"), 1u);
  for (const char* outside : {"http:", "https:", "src=", "href=", "import", "fetch("})
    EXPECT_EQ(count(page, outside), 0u) << outside;
  const json written = json::parse(testing::slurp(fs::path(out) / "sweep.json"));
  EXPECT_EQ(written["runs"].size(), 3u);
  EXPECT_EQ(written["runs"][2]["sets"][0]["limits"].size(), 1u) << "a network has no limit";
  EXPECT_EQ(written["runs"][2]["sets"][0]["limits"][0]["evaluations"], 3.0);
  EXPECT_EQ(written["runs"][2]["sets"][0]["limits"][0]["accuracy"],
            eval(at("levels"))["exact_share"]);
}

TEST_F(SweepTest, PicturesShowEverySquareOfASolve) {
  const std::string out = at("maze-page");
  ASSERT_EQ(
      run_deq("sweep " + at("maze") + " --limits 2,9 --sets 7 --starts 1 --pictures 2 --out " +
              out + " >/dev/null 2>&1")
          .exit_code,
      0);
  const std::string page = testing::slurp(fs::path(out) / "sweep.html");
  const std::string mark = "<script type='application/json'>";
  ASSERT_EQ(count(page, mark), 2u);
  const size_t begin = page.find(mark) + mark.size();
  const json data = json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  EXPECT_EQ(data["rows"], 9);
  EXPECT_EQ(data["columns"], 9);
  EXPECT_EQ(data["symbols"], (json{"#", ".", "S", "E", ".", "*"}));
  std::vector<int64_t> steps;
  for (const json& frame : data["frames"]) {
    steps.push_back(frame["steps"].get<int64_t>());
    EXPECT_EQ(frame["answer"].size(), 81u);
    EXPECT_EQ(frame["levels"].get<std::string>().size(), 81u);
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 6, 8, 9}));
  for (size_t i = 0; i < 81; ++i) {
    const int64_t wanted = data["wanted"][i].get<int64_t>();
    EXPECT_EQ(wanted < 0, data["problem"][i] == 0) << "walls are not scored";
    EXPECT_TRUE(wanted < 0 || wanted >= 4) << "answers are symbols of their own";
  }
}

TEST_F(SweepTest, BadInputIsOneLine) {
  const std::string text = at("text.txt");
  testing::spill(text, testing::small_text());
  ASSERT_EQ(run_deq("train " + at("language") + " --data " + text + " --task bytes --steps 2" +
                    testing::kPlain + " 2>&1")
                .exit_code,
            0);
  const std::string a = "sweep " + at("a") + " --out " + at("bad");
  expect_one_error_line("sweep " + at("language"), "is a language model");
  expect_one_error_line("sweep " + at("a") + " " + at("maze"),
                        "runs of different tasks cannot be compared");
  expect_one_error_line("sweep " + at("nowhere"), "nowhere");
  expect_one_error_line(a + " --sets 5,7", "unknown test set '7'; known: test, 5, 9");
  expect_one_error_line(a + " --sets 5,5", "'5' stands there twice");
  expect_one_error_line(a + " --starts 0", "starts = 0");
  expect_one_error_line(a + " --limits 0,4", "limits: 0");
  expect_one_error_line(a + " --data " + text, "makes its own problems");
  expect_one_error_line("sweep " + at("levels") + " --max-steps 3", "max-steps");
  for (const char* idle : {"limits = 3", "starts = 2", "paths = 2", "pictures = 2", "start-std = 2",
                           "start-seed = 2"}) {
    const std::string option = idle;
    expect_one_error_line("sweep " + at("levels") + " --" + option.substr(0, option.find(' ')) +
                              option.substr(option.rfind(' ')),
                          option + ": run '" + at("levels") + "' is explicit");
  }
  expect_one_error_line(a + " --limits 4,8 --max-steps 3",
                        "max-steps = 3: step limits are those of --limits 4,8");
  expect_one_error_line(a + " --halting trained", "trained without a rule");
  expect_one_error_line(a + " " + at("b") + " --halting change:1,trained:0.5",
                        "all of the runs are trained without a rule");
  expect_one_error_line(a + " " + at("b") + " " + at("b") + "/../a/", "a/' is named twice");
  expect_one_error_line("measure training " + at("a") + " " + at("a"), "is named twice");
  EXPECT_FALSE(fs::exists(at("bad"))) << "nothing is written of a sweep that fails";
}

TEST_F(SweepTest, ARunThatIsBeingWrittenIsLeftAlone) {
  const FolderLock lock{fs::path(at("b"))};
  expect_one_error_line("sweep " + at("a") + " " + at("b"), "is in use by");
}

TEST_F(SweepTest, OnlyASweepIsReplaced) {
  const std::string quick = " --sets 5 --limits 2 --starts 1 --paths 0 --problems 3 --threads 1";
  const std::string out = at("own");
  ASSERT_EQ(run_deq("sweep " + at("a") + quick + " --out " + out + " >/dev/null 2>&1").exit_code,
            0);
  EXPECT_EQ(run_deq("sweep " + at("a") + quick + " --out " + out + " >/dev/null 2>&1").exit_code,
            0);
  expect_one_error_line("sweep " + at("a") + quick + " --out " + at("b"), "is of no sweep");
  testing::spill(fs::path(out) / "sweep.html", "<p>mine");
  expect_one_error_line("sweep " + at("a") + quick + " --out " + out, "'sweep.html'");
  EXPECT_EQ(testing::slurp(fs::path(out) / "sweep.html"), "<p>mine");
  expect_one_error_line("sweep " + at("a") + quick + " --out " + out + "/sweep.md", "is no folder");
  expect_one_error_line("sweep " + at("a") + quick + " --out " + out + "/sweep.md/deeper",
                        "cannot be made in");
}

}  // namespace
}  // namespace deq
