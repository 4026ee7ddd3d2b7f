// Series from the command line: a season is learned in seconds, scored beside the baseline, and
// forecast as CSV and as a page; what did not converge has another exit code, and bad input is one
// line.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "deq/data/csv.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;
using testing::slurp;
using testing::spill;
using Json = nlohmann::json;

constexpr int kPeriod = 8, kRows = 400, kContext = 24, kHorizon = 8;

/// A season of 8 rows around 100, and another column in its opposite, with gaps.
double wave(int t) { return 100 + 20 * std::sin(2 * M_PI * t / kPeriod) + 0.01 * t; }

std::string csv(int rows) {
  std::string text = "date,up,down\n";
  for (int t = 0; t < rows; ++t) {
    const int day = t % 28 + 1, month = t / 28 % 12 + 1, year = 2000 + t / 28 / 12;
    text += fmt::format("{}-{:02}-{:02},{},{}\n", year, month, day,
                        t % 31 == 7 ? "" : fmt::format("{:.3f}", wave(t)),
                        t % 37 == 9 ? "nan" : fmt::format("{:.3f}", 3 - wave(t) / 50));
  }
  return text;
}

const char* const kTask =
    " --task series --task-context 24 --task-horizon 8 --task-season 8 --cell conv --cell-width 24"
    " --cell-kernel 5 --init-std 0.1 --embedding-init-std 0.3 --solver picard --solver-damping 0.7"
    " --max-steps 200 --rel-tol 1e-3 --gradient unrolled --gradient-steps 6 --gradient-damping 0.7"
    " --batch 32 --rate 0.003 --warmup 20 --clip 1 --eval-every 1000 --threads 1";

class ForecastCommand : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<Scratch>();
    spill(*scratch_ / "series.csv", csv(kRows));
    trained_ = run_deq("train " + run() + " --data " + file() + kTask + " --steps 100 2>&1");
    ASSERT_EQ(trained_.exit_code, 0) << trained_.text;
  }
  static void TearDownTestSuite() { scratch_.reset(); }
  static std::string run() { return (*scratch_ / "run").string(); }
  static std::string file() { return (*scratch_ / "series.csv").string(); }
  static std::string forecast(const std::string& arguments, int code = 0) {
    const auto output = run_deq("forecast " + run() + " " + arguments + " 2>/dev/null");
    EXPECT_EQ(output.exit_code, code) << output.text;
    return output.text;
  }

  static std::unique_ptr<Scratch> scratch_;
  static testing::Output trained_;
};
std::unique_ptr<Scratch> ForecastCommand::scratch_;
testing::Output ForecastCommand::trained_;

TEST_F(ForecastCommand, TrainingShowsTheBaselineBesideEachScore) {
  for (const char* line : {"valid: MAE ", "test: MAE "}) EXPECT_SAYS(trained_.text, line);
  EXPECT_SAYS(trained_.text, " (season ago ");
  EXPECT_SAYS(trained_.text, "% inside 80%");
  std::istringstream lines(slurp(*scratch_ / "run/metrics.jsonl"));
  Json last;
  for (std::string line; std::getline(lines, line);) last = Json::parse(line);
  ASSERT_EQ(last["kind"], "test");
  for (const char* name : {"mae", "rmse", "pinball", "inside_80", "inside_90", "season_mae",
                           "season_rmse", "season_pinball", "crossed", "relative_mae"}) {
    EXPECT_TRUE(last[name].is_number()) << name;
    if (std::string(name) == "relative_mae") continue;
    EXPECT_TRUE(last["columns"]["up"][name].is_number()) << name;
    EXPECT_TRUE(last["columns"]["down"][name].is_number()) << name;
  }
  EXPECT_EQ(last["scaled error"], last["loss"]);
}

TEST_F(ForecastCommand, EvaluationIsInTheFilesUnits) {
  const auto output = run_deq("eval " + run() + " --json");
  const Json found = Json::parse(output.text);
  // The baseline of a clean season: what the trend adds in a season, 8 x 0.01.
  EXPECT_NEAR(found["columns"]["up"]["season_mae"].get<double>(), 0.08, 0.02);
  EXPECT_NEAR(found["columns"]["down"]["season_mae"].get<double>(), 0.08 / 50, 0.001);
  EXPECT_LT(found["columns"]["up"]["mae"].get<double>(), 6) << "of a wave of 20";
  EXPECT_EQ(found["values"].get<double>(), found["tokens"].get<double>());
  const auto table = run_deq("eval " + run());
  EXPECT_SAYS(table.text, "column");
  EXPECT_SAYS(table.text, "season_rmse");
  EXPECT_SAYS(table.text, "\ndown  ");
  const Json other = Json::parse(run_deq("eval " + run() + " --json --task-season 1").text);
  EXPECT_GT(other["season_mae"].get<double>(), 5 * found["season_mae"].get<double>());
  EXPECT_EQ(other["mae"], found["mae"]);
  const Json close = Json::parse(run_deq("eval " + run() + " --json --task-stride 1").text);
  EXPECT_GT(close["values"].get<double>(), 5 * found["values"].get<double>());
}

TEST_F(ForecastCommand, PrintsRowsThatFollow) {
  const auto rows = parse_csv(forecast(file()), "out");
  ASSERT_EQ(rows.size(), size_t(kHorizon + 1));
  EXPECT_EQ(rows[0].cells, (std::vector<std::string>{
                               "time", "up 5%", "up 10%", "up 25%", "up 50%", "up 75%", "up 90%",
                               "up 95%", "down 5%", "down 10%", "down 25%", "down 50%", "down 75%",
                               "down 90%", "down 95%", "residual", "converged"}));
  double error = 0;
  for (size_t i = 1; i < rows.size(); ++i) {
    const auto& cells = rows[i].cells;
    for (size_t q = 1; q < 7; ++q) EXPECT_LE(std::stod(cells[q]), std::stod(cells[q + 1]));
    error += std::abs(std::stod(cells[4]) - wave(kRows + int(i) - 1)) / kHorizon;
    EXPECT_LE(std::stod(cells[15]), 1e-3);
    EXPECT_EQ(cells[16], "1");
  }
  EXPECT_LT(error, 8) << "of a wave of 20";
  EXPECT_EQ(rows[1].cells[0], "2001-03-09") << "400 rows: 14 months of 28 days, and 8 days";
}

TEST_F(ForecastCommand, HorizonsShorterAndLonger) {
  const std::string all = forecast(file());
  const std::string shorter = forecast(file() + " --horizon 3");
  EXPECT_EQ(all.rfind(shorter, 0), 0u) << "its beginning";
  const auto longer = run_deq("forecast " + run() + " " + file() + " --horizon 20 2>&1 >/dev/null");
  EXPECT_SAYS(longer.text, "20 rows; the run was trained for 8 (task-horizon)");
  EXPECT_SAYS(longer.text, "rolled on from medians");
  EXPECT_SAYS(longer.text, "in 3 solves");
  const std::string rolled = forecast(file() + " --horizon 20");
  EXPECT_EQ(rolled.rfind(all, 0), 0u);
  EXPECT_EQ(parse_csv(rolled, "out").size(), 21u);
  // What a person who feeds the medians back by hand gets.
  auto rows = parse_csv(all, "out");
  std::string fed = csv(kRows);
  for (size_t i = 1; i < rows.size(); ++i)
    fed += rows[i].cells[0] + "," + rows[i].cells[4] + "," + rows[i].cells[11] + "\n";
  spill(*scratch_ / "fed.csv", fed);
  const auto again = parse_csv(forecast((*scratch_ / "fed.csv").string()), "out");
  const auto expected = parse_csv(rolled, "out");
  for (size_t i = 1; i < again.size(); ++i)
    for (size_t c : {1u, 4u, 11u})
      EXPECT_NEAR(std::stod(again[i].cells[c]), std::stod(expected[i + kHorizon].cells[c]),
                  1e-3 * std::abs(std::stod(again[i].cells[c])));
}

TEST_F(ForecastCommand, OnlyTheLastRowsCount) {
  // A file that begins later gives the same, but for its row numbers.
  std::string late = "date,up,down\n", text = csv(kRows);
  size_t from = text.size();
  for (int i = 0; i <= kContext; ++i) from = text.rfind('\n', from - 1);
  spill(*scratch_ / "late.csv", late + text.substr(from + 1));
  EXPECT_EQ(forecast((*scratch_ / "late.csv").string()), forecast(file()));
}

TEST_F(ForecastCommand, IsDrawnOnAPage) {
  const auto page = *scratch_ / "page.html";
  forecast(file() + " --back 8 --page " + page.string());
  const std::string text = slurp(page);
  EXPECT_EQ(text.rfind("<!doctype html>\n<!-- deq forecast -->\n", 0), 0u);
  for (const char* part : {"<b>up</b>", "<b>down</b>", "what came", "a season ago",
                           "forecast, median", "5, 10, 25, 50, 75, 90, 95%", "<svg"})
    EXPECT_SAYS(text, part);
  for (const char* part : {"http:", "https:", "<script", "src="})
    EXPECT_EQ(text.find(part), std::string::npos) << part;
  forecast(file() + " --page " + page.string());
  EXPECT_EQ(slurp(page).find("what came"), std::string::npos) << "replaced, with nothing behind it";
  spill(*scratch_ / "own.html", "mine");
  expect_one_error_line(
      "forecast " + run() + " " + file() + " --page " + (*scratch_ / "own.html").string(),
      "is no forecast");
  EXPECT_EQ(slurp(*scratch_ / "own.html"), "mine");
}

TEST_F(ForecastCommand, WhatDidNotConvergeIsMarked) {
  const auto rows = parse_csv(forecast(file() + " --max-steps 1", 3), "out");
  for (size_t i = 1; i < rows.size(); ++i) EXPECT_EQ(rows[i].cells[16], "0");
  const auto said = run_deq("forecast " + run() + " " + file() + " --max-steps 1 2>&1 >/dev/null");
  EXPECT_SAYS(said.text, "not converged: not to be trusted");
}

TEST_F(ForecastCommand, DataInfoSaysWhatIsThere) {
  const auto info = run_deq("data info " + file() +
                            " --task series --task-context 24 --task-horizon 8 --task-season 8");
  EXPECT_EQ(info.exit_code, 0);
  EXPECT_SAYS(info.text, "vocabulary  4 values");
  EXPECT_SAYS(info.text, "\ncolumn      up mean 101.");
  EXPECT_SAYS(info.text,
              "\ntest        10 windows of 32 rows, 156 values are scored; MAE of a season");
}

TEST_F(ForecastCommand, OtherCommandsSayWhatTheyCannot) {
  expect_one_error_line("sweep " + run(), "real values");
  spill(*scratch_ / "problem.txt", "1 2\n");
  expect_one_error_line("answer " + run() + " " + (*scratch_ / "problem.txt").string(),
                        "expected `deq forecast` with a CSV file");
  const auto report = run_deq("report " + run() + " --out " + (*scratch_ / "r.html").string());
  EXPECT_EQ(report.exit_code, 0) << report.text;
  const std::string page = slurp(*scratch_ / "r.html");
  EXPECT_SAYS(page, "<th>MAE, a season ago");
  EXPECT_SAYS(page, "MAE, validation");
}

TEST_F(ForecastCommand, AnExplicitNetworkHasNoResidual) {
  const std::string folder = (*scratch_ / "explicit").string();
  const auto made = run_deq(
      "train " + folder + " --data " + file() +
      " --task series --task-context 24 --task-horizon 8 --task-columns up --cell lstm "
      "--cell-width "
      "8 --depth 1 --head values --value-error absolute --batch 16 --steps 3 --eval-every 10"
      " --threads 1 2>&1");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  EXPECT_EQ(made.text.find("inside 80%"), std::string::npos);
  const auto output = run_deq("forecast " + folder + " " + file());
  EXPECT_EQ(output.exit_code, 0);
  const auto rows = parse_csv(output.text, "out");
  EXPECT_EQ(rows[0].cells, (std::vector<std::string>{"time", "up", "residual", "converged"}));
  EXPECT_EQ(rows[1].cells[2], "");
}

TEST_F(ForecastCommand, ALevelLargeBesideTheSpreadKeepsItsDigits) {
  const std::string folder = (*scratch_ / "level").string();
  const std::string level = (*scratch_ / "level.csv").string();
  std::string text = "load,other\n";
  for (int t = 0; t < 200; ++t)
    text += fmt::format("{:.6f},{}\n", 1e8 + 0.5 + 0.5 * std::sin(t), t % 7);
  spill(level, text);
  const auto made = run_deq("train " + folder + " --data " + level +
                            " --task series --task-context 24 --task-horizon 8 --cell lstm"
                            " --cell-width 8 --depth 1 --head values --batch 16 --steps 3"
                            " --eval-every 10 --threads 1 2>&1");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  const auto rows = parse_csv(run_deq("forecast " + folder + " " + level).text, "out");
  ASSERT_EQ(rows.size(), 9u);
  for (size_t i = 1; i < rows.size(); ++i) {
    const std::string& cell = rows[i].cells[1];
    EXPECT_EQ(cell.find('e'), std::string::npos) << cell;
    EXPECT_NE(cell.find('.'), std::string::npos) << cell;
    EXPECT_LE(cell.size(), 16u) << cell;
    EXPECT_NEAR(std::stod(cell), 1e8 + 0.5, 5);
    EXPECT_LE(rows[i].cells[2].size(), 12u) << rows[i].cells[2];
  }
}

TEST_F(ForecastCommand, BadInputIsOneLine) {
  const auto wrong = [&](const std::string& arguments, const std::string& says) {
    expect_one_error_line("forecast " + run() + " " + arguments, says);
  };
  const auto with = [&](const std::string& name, const std::string& text) {
    spill(*scratch_ / name, text);
    return (*scratch_ / name).string();
  };
  wrong(file() + " --horizon 0", "horizon = 0; expected 1 to 1048576 rows");
  wrong(file() + " --horizon 100000000000", "horizon = 100000000000; expected 1 to 1048576 rows");
  wrong(file() + " --horizon -3", "horizon = -3");
  for (const char* empty : {"--horizon \"\"", "--page \"\"", "--checkpoint ''", "--max-steps ''"}) {
    const std::string name = std::string(empty).substr(0, std::string(empty).find(' '));
    const auto output = run_deq("forecast " + run() + " " + file() + " " + empty + " 2>&1");
    EXPECT_EQ(output.exit_code, 2) << empty;
    EXPECT_SAYS(output.text, "error: " + name + " is empty; expected a value");
  }
  std::string gaps = csv(20);
  for (int t = 0; t < kContext; ++t) gaps += fmt::format("2031-01-{:02},,nan\n", t + 1);
  wrong(with("gaps.csv", gaps),
        "gaps.csv: rows 21 to 44 (2031-01-01 to 2031-01-24) have no value in any column");
  wrong("/nowhere.csv", "/nowhere.csv");
  wrong(with("few.csv", csv(kContext - 1)), "23 rows; expected at least 24: task-context = 24");
  wrong(file() + " --back 390", "400 rows; expected at least 414");
  wrong(with("text.csv", csv(30) + "2030-01-01,much,1\n"),
        "text.csv, line 32, column 'up': 'much'; expected a finite number");
  wrong(with("inf.csv", csv(30) + "2030-01-01,inf,1\n"), "'inf'; expected a finite number");
  wrong(with("ragged.csv", csv(30) + "2030-01-01,1\n"), "line 32: 2 cells; expected 3");
  wrong(with("back.csv", csv(30) + "1999-01-01,1,1\n"), "'1999-01-01'; expected a time after");
  wrong(with("names.csv", "a,b\n1,2\n"), "no column 'up'; known: a, b");
  wrong(with("far.csv", csv(30) + "2030-01-01,1e30,1\n"), "standard deviations");
  EXPECT_EQ(run_deq("forecast " + run() + " 2>/dev/null").exit_code, 2);
  const std::string train = "train " + (*scratch_ / "other").string() + " --data " + file() +
                            " --task series --task-context 24 --cell conv --solver picard";
  expect_one_error_line(train + " --steps 1 --task-season 25", "task-season = 25");
  expect_one_error_line(train + " --steps 1 --value-error absolute", "value-error = absolute");
  expect_one_error_line(train + " --steps 1 --quantiles 5,95", "quantiles = 5,95");
  expect_one_error_line(train + " --steps 1 --carry 4 --carry-right 2", "carry-right = 2");
  EXPECT_FALSE(std::filesystem::exists(*scratch_ / "other"));
  spill(*scratch_ / "text.txt", std::string(4000, 'a') + "b");
  const std::string text = (*scratch_ / "words").string();
  ASSERT_EQ(run_deq("train " + text + " --data " + (*scratch_ / "text.txt").string() +
                    " --task bytes --cell lstm --cell-width 8 --depth 1 --batch 2 --length 8 "
                    "--steps 1 --threads 1 2>&1")
                .exit_code,
            0);
  expect_one_error_line("forecast " + text + " " + file(),
                        "is of task bytes; expected one of task series");
}

}  // namespace
}  // namespace deq
