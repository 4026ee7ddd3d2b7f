// A run on problems of other sizes than it was trained on.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

using testing::expect_one_error_line;
using testing::run_deq;
using Json = nlohmann::json;

class OtherSizes : public ::testing::Test {
 protected:
  std::string made(const std::string& cell) {
    const std::string run = (scratch / cell).string();
    const auto result = run_deq("train " + run +
                                " --task sudoku --task-side 4 --task-pool 20 --task-valid 4"
                                " --task-test 6 --task-train 64 --cell-width 8 --solver picard"
                                " --max-steps 6 --batch 16 --steps 2 --threads 1 --cell " +
                                cell + " 2>&1");
    EXPECT_EQ(result.exit_code, 0) << result.text;
    return run;
  }
  testing::Scratch scratch;
};

TEST_F(OtherSizes, OneSetOfWeightsAnswersBoardsOfAnySize) {
  const std::string run = made("groups");
  const std::string eval = "eval " + run + " --json --threads 1 ";
  const Json own = Json::parse(run_deq(eval).text);
  EXPECT_EQ(own.at("tokens"), 6 * 16);
  const Json same = Json::parse(run_deq(eval + "--task-side 4").text);
  EXPECT_EQ(own.at("loss"), same.at("loss"));
  const Json larger = Json::parse(run_deq(eval + "--task-side 9 --task-pool 3 --task-test 2").text);
  EXPECT_EQ(larger.at("tokens"), 2 * 81);
  EXPECT_GT(larger.at("loss").get<double>(), own.at("loss").get<double>());  // of nine, not four
}

TEST_F(OtherSizes, WhatDoesNotFitIsOneLine) {
  const std::string groups = "eval " + made("groups"), conv = "eval " + made("conv");
  expect_one_error_line(conv + " --task-side 9 --task-pool 3 --task-test 2", "has shape");
  expect_one_error_line(groups + " --task mazes", "task = mazes; expected sudoku");
  expect_one_error_line(groups + " --task-side 6", "task-side = 6; expected 4, 9 or 16");
}

}  // namespace
}  // namespace deq
