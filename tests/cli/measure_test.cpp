// deq measure as a user runs it: what its tables say, its pictures, and bad input.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using testing::expect_one_error_line;
using testing::kPlain;
using testing::run_deq;
using testing::Scratch;

/// An equilibrium and a network of levels, trained a few steps on one text; made once.
class MeasureTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    const std::string text = at("text.txt");
    testing::spill(text, testing::small_text());
    const std::string common =
        " --data " + text + " --task bytes --steps 5 --init-std 0.8" + kPlain + " 2>&1";
    ASSERT_EQ(run_deq("train " + at("run") + common).exit_code, 0);
    ASSERT_EQ(run_deq("train " + at("levels") + " --depth 2" + common).exit_code, 0);
    const std::string unrolled = " --gradient unrolled --gradient-steps 3";
    ASSERT_EQ(run_deq("train " + at("unrolled") + unrolled + common).exit_code, 0);
    const std::string shallow = " --pretrain-steps 2 --jacobian-weight 0.1 --jacobian-frequency 1";
    ASSERT_EQ(run_deq("train " + at("shallow") + shallow + common).exit_code, 0);
  }
  static void TearDownTestSuite() { delete scratch_; }
  static std::string at(const std::string& name) { return (*scratch_ / name).string(); }

  static Scratch* scratch_;
};
Scratch* MeasureTest::scratch_ = nullptr;

using Table = std::vector<std::vector<std::string>>;

/// The cells of a Markdown table, without its two lines of heading.
Table table_of(const std::string& markdown) {
  Table rows;
  std::istringstream lines(markdown);
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string>& row = rows.emplace_back();
    size_t begin = 2;
    for (size_t end = line.find(" |"); end != std::string::npos; end = line.find(" |", begin)) {
      row.push_back(line.substr(begin, end - begin));
      begin = end + 3;
    }
  }
  rows.erase(rows.begin(), rows.begin() + 2);
  return rows;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST_F(MeasureTest, TheEquilibriumsMemoryIsFlatAndTheNetworksGrows) {
  const std::string figure = at("memory.svg");
  const auto result = run_deq(std::string("measure memory --task bytes --depths 16,32,64 "
                                          "--history 0 --figure ") +
                              figure +
                              " --cell-width 32 --cell-heads 2 --cell-inner 64 --batch 16 "
                              "--length 32 --threads 1 2>/dev/null");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  ASSERT_EQ(rows.size(), 3u);
  const auto megabytes = [&](size_t row, size_t column) { return std::stod(rows[row][column]); };
  EXPECT_LT(megabytes(2, 1), 1.2 * megabytes(0, 1)) << "the equilibrium";
  EXPECT_NEAR(megabytes(2, 2) / megabytes(1, 2), 2, 0.2) << "the network";
  EXPECT_LT(megabytes(2, 3), megabytes(2, 2) / 2) << "checkpointed";
  EXPECT_EQ(count(testing::slurp(figure), "<polyline"), 3u * 2) << "lines and their legend";
}

TEST_F(MeasureTest, ConvergenceHasEveryMethodOfEveryRun) {
  const std::string figure = at("convergence.svg");
  std::filesystem::copy(at("run"), at("twin"));
  const std::string command = "measure convergence " + at("run") + " " + at("twin") +
                              " --segments 2 --steps 80 --threads 1 --figure " + figure;
  const auto result = run_deq(command + " 2>/dev/null");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  ASSERT_EQ(rows.size(), 12u);
  EXPECT_EQ(rows[4][1], "Anderson, causal");
  for (size_t column = 2; column < 8; ++column) EXPECT_NE(rows[4][column], "–") << column;
  EXPECT_LE(std::stoi(rows[4][2]), std::stoi(rows[4][4])) << "1e-1 comes before 1e-3";
  EXPECT_LE(std::stoi(rows[4][4]), std::stoi(rows[4][7])) << "the median before the slowest";
  for (size_t column = 1; column < 8; ++column)
    EXPECT_EQ(rows[0][column], rows[6][column]) << "the same weights";
  EXPECT_EQ(count(testing::slurp(figure), "<polyline"), 12u * 2) << "lines and their legend";
  EXPECT_EQ(run_deq(command + " 2>/dev/null").exit_code, 0) << "a picture is replaced";
}

TEST_F(MeasureTest, ToleranceTellsWhatLeaks) {
  const auto result =
      run_deq("measure tolerance " + at("run") +
              " --points 3 --loosest 0.3 --steps 600 --tokens 200 --threads 1 2>/dev/null");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  ASSERT_EQ(rows.size(), 9u);
  for (size_t row = 0; row < 3; ++row) EXPECT_EQ(rows[row][6], "0") << "the run's own solver";
  EXPECT_GT(std::stod(rows[3][6]), 1e-6) << "Anderson over samples, loosely";
  EXPECT_LE(std::stod(rows[2][3]), 1e-5);
  EXPECT_NEAR(std::stod(rows[1][2]), std::stod(rows[2][2]), 1e-3) << "solved is solved";
}

TEST_F(MeasureTest, ToleranceSolvesWhereTheRunDoesNot) {
  const auto result = run_deq("measure tolerance " + at("unrolled") +
                              " --points 2 --loosest 0.5 --tightest 1e-4 --tokens 60 --threads 1 "
                              "2>/dev/null");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  EXPECT_LT(std::stod(rows[0][5]), std::stod(rows[1][5])) << "evaluations";
}

TEST_F(MeasureTest, DecodingFindsTheSameEquilibriaEitherWay) {
  const auto result = run_deq("measure decoding " + at("run") +
                              " --lengths 5,20 --prefixes 2 --max-steps 200 --rel-tol 1e-6 "
                              "--threads 1");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  ASSERT_EQ(rows.size(), 2u);
  for (const auto& row : rows) {
    EXPECT_EQ(row[5], "100.0%");
    EXPECT_LT(std::stod(row[6]), 1e-4);
    EXPECT_LT(std::stod(row[7]), 1e-4);
  }
}

TEST_F(MeasureTest, GradientsComeCloserWithTheirTolerance) {
  const auto result = run_deq("measure gradients " + at("run") +
                              " --segments 2 --steps 400 --forward-tol 1e-6 --threads 1");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  const auto error = [&](const std::string& name) {
    for (const auto& row : rows) {
      if (row[0] == name) return std::stod(row[3]);
    }
    ADD_FAILURE() << "no row " << name;
    return 0.0;
  };
  EXPECT_LE(std::stod(rows[0][2]), 1e-6) << "the measure itself";
  EXPECT_LT(error("implicit to 0.001"), 1e-2);
  EXPECT_LT(error("implicit to 0.001"), error("implicit to 0.1"));
  EXPECT_GT(error("one-step"), error("implicit to 0.01"));
  EXPECT_NEAR(error("implicit, 1 step"), error("one-step"), 1e-3) << "u = g";
}

TEST_F(MeasureTest, CostsOfAnyNetworkStandSideBySide) {
  const std::string runs = at("run") + " " + at("levels");
  const auto result =
      run_deq("measure cost " + runs + " --train 2 --decode 5 --threads 1 2>/dev/null");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0][0], "run");
  EXPECT_EQ(rows[0][1], rows[1][1]) << "parameters of one cell";
  EXPECT_EQ(rows[0][4].back(), '%');
  EXPECT_EQ(rows[1][4], "–") << "levels do not converge";
  for (const auto& row : rows) {
    for (const size_t column : {2, 5, 6, 7, 8}) EXPECT_GT(std::stod(row[column]), 0) << column;
    EXPECT_GT(std::stod(row[5]), 0.01) << "memory";
  }
  const auto evaluated = run_deq("eval " + at("run") + " --max-steps 100 --threads 1 --json");
  const double bits = nlohmann::json::parse(evaluated.text).at("bits per byte").get<double>();
  EXPECT_NEAR(std::stod(rows[0][2]), bits, 1e-3) << evaluated.text;
}

TEST_F(MeasureTest, TrainingIsInPartsAfterPretraining) {
  const std::string figure = at("training.svg");
  const auto result = run_deq("measure training " + at("run") + " " + at("shallow") +
                              " --parts 2 --figure " + figure + " 2>/dev/null");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const Table rows = table_of(result.text);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0][1], "1 to 2");
  EXPECT_EQ(rows[1][1], "3 to 5");
  EXPECT_EQ(rows[2][1], "3 to 3") << "two shallow steps before";
  EXPECT_EQ(rows[3][1], "4 to 5");
  for (const auto& row : rows) EXPECT_GT(std::stod(row[3]), 1) << "evaluations";
  EXPECT_EQ(rows[0][7], "–");
  EXPECT_GT(std::stod(rows[3][7]), 0) << "estimated in every step";
  EXPECT_EQ(count(testing::slurp(figure), "<polyline"), 2u * 3 + 2 * 3) << "lines and legends";
}

TEST_F(MeasureTest, BadInputIsOneLine) {
  const auto refused = [&](const std::string& arguments, const std::string& says) {
    expect_one_error_line("measure " + arguments, says);
  };
  refused("convergence " + at("nowhere"), "nowhere");
  refused("convergence " + at("levels"), "explicit network of depth 2");
  refused("tolerance " + at("levels"), "explicit network of depth 2");
  refused("gradients " + at("levels"), "explicit network of depth 2");
  refused("gradients " + at("run") + " --segments 0", "segments = 0; expected in [1, 4096]");
  refused("decoding " + at("levels"), "explicit network of depth 2");
  refused("decoding " + at("run") + " --lengths 0", "lengths = 0; expected 1 to");
  refused("decoding " + at("run") + " --lengths 123456", "lengths = 123456; expected 1 to");
  refused("tolerance " + at("run") + " --tightest 2", "tightest = 2; expected less than");
  refused("training " + at("nowhere"), "nowhere");
  refused("cost " + at("run") + " --decode 123456", "to decode 123456 behind");
  refused("cost " + at("run") + " --train 0", "train = 0; expected in [1, 4096]");
  refused("memory --task bytes --depths 0", "depths = 0; expected 1 to");
  refused("memory --depths 2", "task-vocabulary = 0");
  refused("memory --task bytes --figure plot.png", "expected a name that ends in .svg");
  const std::string mine = at("mine.svg");
  for (const std::string text : {"my notes", "<svg>my drawing</svg>"}) {
    testing::spill(mine, text);
    refused("convergence " + at("run") + " --figure " + mine, "is no picture");
    EXPECT_EQ(testing::slurp(mine), text);
  }
  EXPECT_EQ(run_deq("measure nothing 2>/dev/null").exit_code, 2);
  EXPECT_EQ(run_deq("measure 2>/dev/null").exit_code, 2);
  EXPECT_EQ(run_deq("measure --help >/dev/null").exit_code, 0);
}

}  // namespace
}  // namespace deq
