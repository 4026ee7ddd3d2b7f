// Answers from the command line: the numbers are evaluation's, the threshold is the validation
// split's, what is wrong never passes for an answer, and bad input is one line.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "deq/files/folder_lock.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::expect_one_error_line;
using testing::run_command;
using testing::run_deq;
using testing::Scratch;
using testing::slurp;
using testing::spill;
using Json = nlohmann::json;

constexpr const char* kSums =
    " --task prefix-sums --task-length 8 --task-test-lengths 12 --task-train 1024 --task-valid 60"
    " --task-test 20 --cell shift --cell-meeting additive --cell-width 16 --cell-inner 32"
    " --solver sweep --batch 32 --rate 0.01 --init-std 0.3 --clip 1 --eval-every 1000"
    " --threads 1";

/// Trained once for all tests, which copy what they change.
class Answer : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<Scratch>();
    make("sums", std::string(kSums) + " --steps 150");
    make("untrained", std::string(kSums) + " --steps 1");
    make("sudoku",
         " --task sudoku --task-side 4 --task-pool 20 --task-valid 8 --task-test 4"
         " --task-train 64 --cell conv --cell-width 8 --solver anderson --max-steps 6"
         " --batch 16 --steps 2 --threads 1");
  }
  static void TearDownTestSuite() { scratch_.reset(); }

  static void make(const std::string& name, const std::string& options) {
    const auto made = run_deq("train " + path(name) + options + " 2>&1");
    ASSERT_EQ(made.exit_code, 0) << made.text;
  }
  static std::string path(const std::string& name) { return (*scratch_ / name).string(); }
  static std::string text(const std::string& name, const std::string& bytes) {
    spill(*scratch_ / name, bytes);
    return path(name);
  }
  /// A copy of the run, with no threshold chosen.
  static std::string copy(const std::string& name, const std::string& as) {
    fs::copy(path(name), path(as));
    fs::remove(*scratch_ / as / "trust.json");
    return path(as);
  }
  static std::vector<Json> rows(const std::string& arguments, int exit_code = 0) {
    const auto output = run_deq("answer " + arguments + " --json --quiet");
    EXPECT_EQ(output.exit_code, exit_code) << arguments << "\n" << output.text;
    std::vector<Json> found;
    std::istringstream lines(output.text);
    for (std::string line; std::getline(lines, line);) found.push_back(Json::parse(line));
    return found;
  }
  static int count_of(const std::string& all, const std::string& part) {
    int found = 0;
    for (size_t at = all.find(part); at != std::string::npos; at = all.find(part, at + 1)) ++found;
    return found;
  }
  static Json trust(const std::string& run) {
    return Json::parse(slurp(fs::path(run) / "trust.json"));
  }

  static std::unique_ptr<Scratch> scratch_;
};
std::unique_ptr<Scratch> Answer::scratch_;

TEST_F(Answer, IsTrustedAndChecked) {
  const std::string run = copy("sums", "trusted");
  const std::string problems = text("two.txt", "01101001\n1 1 1 1 0 0 0 0\n");
  const auto output = run_deq("answer " + run + " " + problems + " 2>/dev/null");
  EXPECT_EQ(output.exit_code, 0);
  EXPECT_SAYS(output.text, "01001110\t");
  EXPECT_SAYS(output.text, "\n10100000\t");
  EXPECT_SAYS(output.text, "\ttrusted; checked: valid\n");
  const auto found = rows(run + " " + problems);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[1]["line"], 2);
  EXPECT_EQ(found[1]["answer"], "10100000");
  EXPECT_EQ(found[1]["valid"], true);
  EXPECT_EQ(found[1]["converged"], true);
  EXPECT_EQ(found[1]["size"], Json({8}));
  EXPECT_EQ(found[1]["trained_size"], true);
  EXPECT_LE(found[1]["residual"], 1e-3);
  // The threshold and what it stands on.
  const Json chosen = trust(run);
  ASSERT_EQ(chosen.size(), 1u);
  EXPECT_EQ(chosen[0]["threshold"], 1e-3);
  EXPECT_EQ(chosen[0]["right_within"], 60);
  EXPECT_EQ(chosen[0]["split"], "valid");
  EXPECT_EQ(chosen[0]["largest"], Json({8}));
  EXPECT_EQ(chosen[0]["settings"]["max-steps"], "30");
}

TEST_F(Answer, OneAloneIsWhatItIsAmongOthersOfAnySize) {
  const std::string all = "01101001\n1101\n111111110000\n1\n";
  const auto together = rows(path("sums") + " " + text("sizes.txt", all));
  ASSERT_EQ(together.size(), 4u);
  std::istringstream lines(all);
  for (size_t i = 0; i < 2; ++i) {
    std::string line;
    std::getline(lines, line);
    Json alone = Json::parse(run_command("echo " + line + " | " +
                                         testing::limited("answer --json --quiet ") + path("sums"))
                                 .text);
    alone["line"] = i + 1;
    EXPECT_EQ(alone, together[i]);
    EXPECT_EQ(alone["trained_size"], i == 0);
  }
  EXPECT_SAYS(together[2]["verdict"].get<std::string>(), "; a size not trained on");
  const auto summary =
      run_deq("answer " + path("sums") + " " + path("sizes.txt") + " 2>&1 >/dev/null").text;
  EXPECT_SAYS(summary, "trusted: 4 of 4; of sizes not trained on (8): 3");
  EXPECT_SAYS(summary, "threshold 1.0e-03: of 60 problems of valid within it 60 are right");
}

TEST_F(Answer, IsEvaluations) {
  // The run's first test problems, whose answers and numbers `deq eval` gives as means.
  const auto row = Json::parse(
      run_deq("eval " + path("sums") + " --json --eval-batch 1 --rel-tol 1e-5 --max-steps 40")
          .text);
  EXPECT_EQ(row["exact_share"], 1);
  const auto found =
      rows(path("sums") + " " + text("one.txt", "00010111\n") + " --rel-tol 1e-5 --max-steps 40");
  EXPECT_EQ(double(found[0]["evaluations"]), double(row["evaluations"]));
  EXPECT_LE(found[0]["residual"], row["worst_residual"].get<double>() * 1.0001 + 1e-12);
}

TEST_F(Answer, AWrongAnswerIsInvalidWhateverItsResidual) {
  const std::string run = copy("untrained", "wrong");
  const std::string problems = text("two.txt", "01101001\n11110000\n");
  const auto found = rows(run + " " + problems, 3);
  for (const Json& one : found) {
    EXPECT_EQ(one["trusted"], false);
    EXPECT_EQ(one["converged"], true);
    EXPECT_EQ(one["valid"], false);
    EXPECT_SAYS(one["verdict"].get<std::string>(), "invalid: the sum is ");
  }
  EXPECT_TRUE(trust(run)[0]["threshold"].is_null());
  EXPECT_SAYS(run_deq("answer " + run + " " + problems + " 2>&1 >/dev/null").text,
              "trusted: 0 of 2; invalid: 2");
}

TEST_F(Answer, WhatDidNotConvergeIsNotTrusted) {
  const std::string run = copy("sudoku", "open");
  const auto found = rows(run + " " + text("board.txt", "1234\n341.\n2143\n4321\n"), 3);
  EXPECT_EQ(found[0]["trusted"], false);
  EXPECT_EQ(found[0]["valid"], false);
  // Right by chance or not: a threshold beyond all that was seen does not make it trusted.
  Json made = trust(run);
  made[0]["threshold"] = 1e9;
  spill(fs::path(run) / "trust.json", made.dump());
  const auto again = rows(run + " " + path("board.txt"), 3);
  EXPECT_EQ(again[0]["converged"], false);
  EXPECT_EQ(again[0]["trusted"], false);
}

TEST_F(Answer, ThresholdsBelongToWeightsAndSettings) {
  const std::string run = copy("sums", "kept");
  const std::string one = " " + text("one.txt", "00010111\n");
  rows(run + one);
  Json made = trust(run);
  made[0]["threshold"] = 1e-30;  // as nobody would choose: that it is used shows that it was read
  spill(fs::path(run) / "trust.json", made.dump());
  const auto found = rows(run + one + " --start-std 1", 1);
  EXPECT_TRUE(found.empty());  // an option that changes nothing
  EXPECT_EQ(trust(run), made);
  rows(run + one + " --max-steps 29");
  ASSERT_EQ(trust(run).size(), 2u);
  EXPECT_EQ(trust(run)[0], made[0]);
  EXPECT_EQ(trust(run)[1]["threshold"], 1e-3);
  rows(run + one + " --starts 2 --max-steps 29");
  EXPECT_EQ(trust(run).size(), 3u);
  // Other weights: what was chosen for these is forgotten.
  fs::copy_file(fs::path(path("untrained")) / "best.safetensors",
                fs::path(run) / "best.safetensors", fs::copy_options::overwrite_existing);
  EXPECT_SAYS(run_deq("answer " + run + one + " 2>&1 >/dev/null").text,
              "thresholds of other weights are forgotten: 3");
  ASSERT_EQ(trust(run).size(), 1u);
  EXPECT_NE(trust(run)[0]["weights"], made[0]["weights"]);
  for (const char* broken :
       {"", "3", "{}", "[1]", "{\"threshold\": 3}", "[{\"threshold\": \"a\"}]"}) {
    spill(fs::path(run) / "trust.json", broken);
    const auto answered = run_deq("answer " + run + one + " --quiet 2>&1 >/dev/null");
    EXPECT_EQ(answered.exit_code, 3);
    EXPECT_SAYS(answered.text, "trust.json: no ");
    EXPECT_EQ(trust(run).size(), 1u);
  }
}

/// Whose paths say nothing of what is in them.
TEST_F(Answer, ThresholdsBelongToTheContentsOfData) {
  std::string lines;
  for (int i = 0; i < 80; ++i) lines += i % 3 ? "1 0\t1 1\n" : "0 1 1\t0 1 0\n";
  const std::string data = text("own.tsv", lines), one = " " + text("one.txt", "0 1 1\n");
  make("own", " --task pairs --data " + data +
                  " --task-valid-share 0.4 --cell shift --cell-width 8 --cell-inner 16"
                  " --solver sweep --batch 4 --steps 2 --threads 1");
  const auto said = [&](const std::string& file) {
    const auto output = run_command("cd " + fs::path(data).parent_path().string() + " && " +
                                    testing::limited("answer " + path("own") + one + " --data " +
                                                     file + " --json 2>&1 >/dev/null"));
    return count_of(output.text, "choosing a threshold on the validation split");
  };
  EXPECT_EQ(said("own.tsv"), 1);
  EXPECT_EQ(said(data), 0) << "the same by another path";
  EXPECT_EQ(trust(path("own")).size(), 1u);
  text("own.tsv", lines + lines);
  EXPECT_EQ(said("own.tsv"), 1) << "others by the same path";
  EXPECT_EQ(said("own.tsv"), 0);
  EXPECT_EQ(trust(path("own")).size(), 2u);
  text("own.tsv", lines);
  EXPECT_EQ(said("own.tsv"), 0) << "beside each other";
}

TEST_F(Answer, AFolderThatCannotBeWrittenToIsSaid) {
  const std::string run = copy("sums", "readonly");
  fs::create_directory(fs::path(run) / "trust.json");  // root can write anywhere, but not here
  const auto output = run_deq("answer " + run + " " + text("one.txt", "00010111\n") + " 2>&1");
  EXPECT_EQ(output.exit_code, 0) << output.text;
  EXPECT_SAYS(output.text, "the threshold is not kept: ");
  EXPECT_SAYS(output.text, "\ttrusted");
}

TEST_F(Answer, IsShownAlongTheSolveAndFromSeveralStarts) {
  const std::string board = text("board.txt", "1234\n341.\n2143\n4321\n");
  const auto found = rows(path("sudoku") + " " + board + " --show --max-steps 5 --rel-tol 1e-9", 3);
  ASSERT_EQ(found[0]["along"].size(), 3u);
  EXPECT_EQ(found[0]["along"][2]["steps"], 4);
  EXPECT_EQ(found[0]["along"][0]["answer"].get<std::string>().size(), 16u);
  const auto starts =
      rows(path("sudoku") + " " + board + " --starts 4 --max-steps 5 --rel-tol 1e-9", 3);
  EXPECT_EQ(int(starts[0]["evaluations"]), 4 * int(found[0]["evaluations"]));
  EXPECT_LE(starts[0]["residual"], found[0]["residual"]);
  const auto output =
      run_deq("answer " + path("sudoku") + " " + board + " --pretty --show --quiet");
  EXPECT_SAYS(output.text, " | ");
  EXPECT_SAYS(output.text, "\n----+----\n");
  EXPECT_SAYS(output.text, "\tafter 4 steps\n");
}

TEST_F(Answer, PairsFromAFileToAnAnswer) {
  std::string data;  // all of 1 to 4 lights, several times, a place of each not scored
  int64_t scored = 0;
  for (int i = 0; i < 120; ++i) {
    const int length = 1 + i % 4;
    std::string lights, answers;
    for (int t = 0; t < length; ++t) {
      const bool red = (i / 4 >> t) % 2;
      const bool hidden = length > 1 && t == i / 4 % length;
      lights += red ? "red " : "green ";
      answers += hidden ? "_ " : red ? "stop " : "go ";
      scored += !hidden;
    }
    data += lights + "\t" + answers + "\n";
  }
  const std::string file = text("lights.tsv", data);
  make("lights", " --task pairs --data " + file +
                     " --cell shift --cell-width 8 --cell-inner 16 --solver sweep --batch 4"
                     " --rate 0.03 --init-std 0.3 --steps 60 --eval-every 60 --threads 1"
                     " --task-valid-share 0.2");
  const std::string problems = text("lights.txt", "green green red\nred\n");
  const auto output = run_deq("answer " + path("lights") + " " + problems + " --quiet");
  EXPECT_EQ(output.exit_code, 0) << output.text;
  EXPECT_SAYS(output.text, "go go stop\t");
  EXPECT_SAYS(output.text, "\nstop\t");
  const auto found = rows(path("lights") + " " + problems);
  EXPECT_TRUE(found[0]["valid"].is_null());
  EXPECT_EQ(found[0]["verdict"], "trusted");
  const auto all = Json::parse(
      run_deq("eval " + path("lights") + " --data " + file + " --split all --json").text);
  EXPECT_EQ(all["exact_share"], 1);
  EXPECT_EQ(all["tokens"], scored);
  expect_one_error_line("answer " + path("lights") + " " + text("blue.txt", "red\nred blue\n"),
                        "blue.txt, line 2: unknown symbol 'blue'; known: green red");
}

TEST_F(Answer, BadInputIsOneLine) {
  const std::string sums = "answer " + path("sums") + " ",
                    sudoku = "answer " + path("sudoku") + " ";
  const auto bits = [&](const std::string& name, const std::string& bytes) {
    return sums + text(name, bytes);
  };
  expect_one_error_line(bits("x.txt", "01\n\n012\n"),
                        "x.txt, line 3: unknown symbol '2'; known: 0 1");
  expect_one_error_line(bits("x.txt", "01\n0\xff"),
                        "x.txt, line 2: byte 0xff; expected UTF-8 text");
  expect_one_error_line(bits("x.txt", ""), "x.txt: no problem; expected one at least");
  expect_one_error_line(sums + "< /dev/null", "standard input: no problem");
  expect_one_error_line(sums + path("none.txt"), "none.txt");
  expect_one_error_line(sudoku + text("s.txt", "1...............\n"),
                        "s.txt, line 1: a puzzle with more than one solution");
  expect_one_error_line(sudoku + text("s.txt", "1234341.21434321\n11..............\n"),
                        "s.txt, line 2: a puzzle without a solution");
  expect_one_error_line(sudoku + text("s.txt", "123434..\n"),
                        "s.txt, line 1: 8 places; expected a");
  expect_one_error_line("answer " + path("nowhere") + " x", "nowhere");
  expect_one_error_line(sums + text("ok.txt", "01\n") + " --max-steps 0", "max-steps = 0");
  expect_one_error_line(sums + path("ok.txt") + " --starts 0", "starts = 0; expected in [1,");
  expect_one_error_line(sums + path("ok.txt") + " --pretty --json", "--pretty: no picture");
  expect_one_error_line(sums + path("ok.txt") + " --start-seed 3",
                        "start-seed = 3: nothing is drawn; expected starts >= 2 with it");
  expect_one_error_line("answer " DEQ_SOURCE_DIR "/models/shakespeare " + path("ok.txt"),
                        "is of task characters, a language model; expected one that answers");
  EXPECT_EQ(run_deq("answer 2>/dev/null").exit_code, 2);
  EXPECT_EQ(run_deq(sums + path("ok.txt") + " --nonsense 2>/dev/null").exit_code, 2);
  {
    const FolderLock lock(path("sums"));
    expect_one_error_line(sums + path("ok.txt"),
                          "is in use by process " + std::to_string(::getpid()));
  }
  EXPECT_EQ(run_deq(sums + path("ok.txt") + " --quiet >/dev/null").exit_code, 0);
}

TEST_F(Answer, ARunWhoseFilesDoNotFitIsAnError) {
  const std::string run = copy("sudoku", "unfit");
  const fs::path config = fs::path(run) / "config.toml";
  std::string held = slurp(config);
  held.replace(held.find("task-side = 4"), 13, "task-side = 9");
  spill(config, held);
  expect_one_error_line("answer " + run + " " + text("s.txt", "1234341.21434321\n"),
                        "task sudoku has 10 symbols, vocab.txt 5; expected the same");
  spill(config, held + "foo = 1\n");
  expect_one_error_line("answer " + run + " " + path("s.txt"), "unknown option 'foo'");
  spill(config, held);
  fs::rename(fs::path(run) / "answers.txt", path("elsewhere"));
  expect_one_error_line("answer " + run + " " + path("s.txt"),
                        "answers.txt' is missing; expected the answers' vocabulary");
  fs::rename(path("elsewhere"), fs::path(run) / "answers.txt");
  fs::rename(fs::path(run) / "best.safetensors", path("elsewhere"));
  fs::remove(fs::path(run) / "last.safetensors");
  expect_one_error_line("answer " + run + " " + path("s.txt"),
                        "has no weights; expected best.safetensors or last.safetensors");
  fs::rename(path("elsewhere"), fs::path(run) / "best.safetensors");
  spill(fs::path(run) / "vocab.txt", "# deq vocabulary: symbol\na\nb\n");
  expect_one_error_line("answer " + run + " " + path("s.txt"), "vocab.txt does not fit");
}

}  // namespace
}  // namespace deq
