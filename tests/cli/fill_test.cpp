// Holes from the command line: an alphabet that is learned in seconds is filled, all at once and
// one by one; what did not converge has another exit code, and bad input is one line.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;
using testing::spill;
using Json = nlohmann::json;

class Fill : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<Scratch>();
    std::string text;
    for (int i = 0; i < 8000; ++i) text += char('a' + i % 8);
    spill(*scratch_ / "text.txt", text);
    const auto made = run_deq(
        "train " + run() + " --data " + (*scratch_ / "text.txt").string() +
        " --task masked --task-length 24 --task-least 0.1 --task-most 0.4 --task-ends 0.3"
        " --task-train 512"
        " --task-valid 40 --task-test 20 --cell conv --cell-width 24 --init-std 0.1"
        " --solver picard --solver-damping 0.7 --max-steps 100 --rel-tol 1e-3 --gradient unrolled"
        " --gradient-steps 10 --gradient-damping 0.7 --batch 32 --rate 0.01 --clip 1 --steps 120"
        " --eval-every 1000 --threads 1 2>&1");
    ASSERT_EQ(made.exit_code, 0) << made.text;
  }
  static void TearDownTestSuite() { scratch_.reset(); }
  static std::string run() { return (*scratch_ / "run").string(); }
  static Json filled(const std::string& arguments) {
    const auto output = run_deq("fill " + run() + " " + arguments + " --json");
    EXPECT_EQ(output.exit_code, 0) << output.text;
    return Json::parse(output.text);
  }

  static std::unique_ptr<Scratch> scratch_;
};
std::unique_ptr<Scratch> Fill::scratch_;

TEST_F(Fill, AllHolesAtOnceAndOneByOne) {
  const Json at_once = filled("abcd_fg_abcdefghab_defgh");
  EXPECT_EQ(at_once["text"], "abcdefghabcdefghabcdefgh");
  EXPECT_EQ(at_once["solves"], 1);
  EXPECT_TRUE(at_once["converged"].get<bool>());
  ASSERT_EQ(at_once["holes"].size(), 3u);
  EXPECT_EQ(at_once["holes"][1]["place"], 8);
  const Json& best = at_once["holes"][1]["alternatives"];
  ASSERT_EQ(best.size(), 3u);
  EXPECT_EQ(best[0]["character"], "h");
  EXPECT_GT(best[0]["probability"].get<double>(), best[1]["probability"].get<double>());
  const Json one_by_one = filled("abcd_fg_abcdefghab_defgh --refine 9");
  EXPECT_EQ(one_by_one["text"], at_once["text"]);
  EXPECT_EQ(one_by_one["solves"], 3);
  EXPECT_GT(one_by_one["evaluations"].get<int>(), at_once["evaluations"].get<int>());
  EXPECT_LT(one_by_one["evaluations"].get<int>(), 3 * at_once["evaluations"].get<int>())
      << "from where it stood";
  std::set<int> solves;
  for (const Json& hole : one_by_one["holes"]) solves.insert(hole["solve"].get<int>());
  EXPECT_EQ(solves, (std::set<int>{1, 2, 3}));
  EXPECT_EQ(filled("abcd_fg_abcdefghab_defgh --refine 1")["solves"], 2);
  EXPECT_EQ(filled("abcd_fgh --alternatives 2")["holes"][0]["alternatives"].size(), 2u);
}

TEST_F(Fill, IsPrintedForAPerson) {
  const auto output = run_deq("fill " + run() + " abcdefg_ 2>&1");
  EXPECT_SAYS(output.text, "abcdefgh\n8:  h ");
  EXPECT_SAYS(output.text, "converged: residual");
}

TEST_F(Fill, GoesOnWithAText) {
  const Json more = filled("abcd_fgh --append 20 --greedy");
  EXPECT_EQ(more["text"], "abcdefgh");
  EXPECT_EQ(more["appended"]["text"], "abcdefghabcdefghabcd");
  EXPECT_EQ(more["appended"]["solves"], 20);
  EXPECT_EQ(more["appended"]["converged"], 20);
  EXPECT_GT(more["appended"]["residual"], 0);
  EXPECT_LE(more["appended"]["residual"], 1e-3);
  const Json alone = filled("cdefg --append 5 --greedy");
  EXPECT_EQ(alone["text"], "cdefg");
  EXPECT_EQ(alone["solves"], 0);
  EXPECT_EQ(alone["appended"]["text"], "habcd");
  const std::string hot = "abc --append 12 --temperature 8 --seed ";
  EXPECT_EQ(filled(hot + "3")["appended"], filled(hot + "3")["appended"]);
  EXPECT_NE(filled(hot + "3")["appended"]["text"], filled(hot + "4")["appended"]["text"]);
  const auto output = run_deq("fill " + run() + " abcdefg_ --append 2 --greedy 2>&1");
  EXPECT_SAYS(output.text, "abcdefghab\n8:  h ");
  EXPECT_SAYS(output.text, "2 characters behind it: 2 converged");
  EXPECT_EQ(run_deq("fill " + run() + " abcdefg --append 2 --max-steps 1 2>&1").exit_code, 3);
}

TEST_F(Fill, BothSidesTellMoreThanTheLeftOne) {
  const std::string text = (*scratch_ / "text.txt").string(),
                    causal = (*scratch_ / "causal").string();
  const auto made =
      run_deq("train " + causal + " --data " + text +
              " --task characters --cell-width 16 --cell-heads 2 --cell-inner 16 --init-std 0.1"
              " --batch 8 --length 16 --history 16 --eval-length 16 --eval-history 16 --rate 0.01"
              " --steps 60 --eval-every 1000 --threads 1 2>&1");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  const auto cells = [](const std::string& table, const std::string& row) {
    std::vector<std::string> found;
    const size_t first = table.find("| " + row + " |");
    if (first == std::string::npos) return found;
    std::stringstream line(table.substr(first, table.find('\n', first) - first));
    for (std::string cell; std::getline(line, cell, '|');) found.push_back(cell);
    return found;
  };
  const auto sides = run_deq("measure sides " + run() + " " + causal + " --threads 1");
  ASSERT_EQ(sides.exit_code, 0) << sides.text;
  for (const char* row : {"1", "4", "16", "next"}) {
    const auto found = cells(sides.text, row);
    ASSERT_EQ(found.size(), 7u) << sides.text;
    const int characters = std::stoi(found[2]);
    const std::string set = row;
    EXPECT_GE(characters, set == "next" ? 20 : 16);  // task-test
    EXPECT_LE(characters, set == "next" ? 20 : set == "1" ? 60 : 20 * 16);
    EXPECT_LT(std::stod(found[4]), 3.0) << "the alphabet is told better than by chance";
  }
  EXPECT_LT(std::stod(cells(sides.text, "1")[3]), 0.5);
  const auto anew = run_deq("measure anew " + run() + " " + causal + " --tokens 60 --threads 1");
  ASSERT_EQ(anew.exit_code, 0) << anew.text;
  const auto kept = cells(anew.text, "causal, equilibria kept");
  const auto warm = cells(anew.text, "all again, from where it stood");
  const auto cold = cells(anew.text, "all again, from the start");
  for (const auto& row : {kept, warm, cold}) ASSERT_EQ(row.size(), 7u) << anew.text;
  EXPECT_EQ(std::stoi(kept[4]), 1);
  // 2, 3, ... 24 positions, then 24: those of a piece.
  EXPECT_EQ(std::stoi(warm[4]), std::lround((23 * 13.0 + 37 * 24) / 60));
  EXPECT_EQ(warm[4], cold[4]);
  EXPECT_LT(std::stod(warm[3]), std::stod(cold[3])) << "fewer evaluations";
  EXPECT_LT(std::stod(warm[2]), 1.5);
  expect_one_error_line("measure sides " + causal + " " + run(), "expected one of task masked");
  std::filesystem::copy(run(), run() + "-twin");
  expect_one_error_line("measure sides " + run() + " " + run() + "-twin",
                        "which continues no text");
  expect_one_error_line("measure anew " + run() + " " + causal + " --tokens 90000",
                        "tokens = 90000");
}

TEST_F(Fill, WhatDidNotConvergeHasAnotherExitCode) {
  const auto output = run_deq("fill " + run() + " abcdefg_ --max-steps 1 2>&1");
  EXPECT_EQ(output.exit_code, 3);
  EXPECT_SAYS(output.text, "not converged: not to be trusted");
}

TEST_F(Fill, BadInputIsOneLine) {
  const auto wrong = [&](const std::string& arguments, const std::string& says) {
    expect_one_error_line("fill " + run() + " " + arguments, says);
  };
  wrong("abcdefgh", "no hole");
  wrong("abcXefg_", "'X' is not among the 8 characters");
  wrong("ab____gh", "4 of 8 characters are holes, 50%; the run was trained for 40%");
  wrong("\"$(printf 'ab_\\nab_')\"", "2 lines");
  wrong("ab_defgh --alternatives 0", "alternatives");
  wrong("'' --append 2", "append = 2 behind an empty text");
  wrong("abc --append 2 --temperature 0", "temperature = 0");
  for (const char* drawn : {"seed 3", "temperature 0.5", "top-k 2", "top-p 0.5", "greedy true"})
    wrong(std::string("abc_ --") + drawn, "nothing follows the text; expected --append N with it");
  wrong("abc --append 2 --greedy --seed 3", "seed = 3: nothing is drawn with greedy");
  wrong("abc --append 2 --top-k 8", "top-k = 8: it leaves out none of the 8 tokens");
  wrong("abc --append 2 --refine 2", "refine = 2: the text has no hole to fill");
  wrong("abc --append 2 --alternatives 2", "alternatives = 2: the text has no hole to fill");
  EXPECT_EQ(run_deq("fill " + run() + " 2>/dev/null").exit_code, 2);
}

}  // namespace
}  // namespace deq
