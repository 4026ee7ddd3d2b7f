// deq report as a user runs it: the page of real runs, and what it refuses.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "deq/measure/memory_tracks.h"
#include "deq/report/chart.h"
#include "deq/runs/run.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::expect_one_error_line;
using testing::kCopy;
using testing::kPlain;
using testing::kPlainSequences;
using testing::run_deq;
using testing::Scratch;

/// Two short runs on one text; made once.
class ReportTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    const std::string text = (*scratch_ / "text <b>.txt").string();
    testing::spill(text, testing::small_text());
    const std::string common = " --data '" + text + "' --task bytes --steps 12" + kPlain + " 2>&1";
    const std::string stable = " --jacobian-weight 0.1 --pretrain-steps 2";
    ASSERT_EQ(run_deq("train " + folder("a") + stable + common).exit_code, 0);
    ASSERT_EQ(run_deq("train " + folder("b") + " --depth 2" + common).exit_code, 0);
  }
  static void TearDownTestSuite() { delete scratch_; }

  static std::string folder(const std::string& name) { return (*scratch_ / name).string(); }

  static Scratch* scratch_;
};
Scratch* ReportTest::scratch_ = nullptr;

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

/// The last line of a kind in a run's metrics.
nlohmann::json last_of(const fs::path& run, const std::string& kind) {
  nlohmann::json found;
  std::istringstream lines(testing::slurp(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    nlohmann::json row = nlohmann::json::parse(line);
    if (row.at("kind") == kind) found = row;
  }
  return found;
}

TEST_F(ReportTest, APageOfOneRunHasItsNumbersItsChartsAndItsSolves) {
  ASSERT_EQ(run_deq("report " + folder("a") + " --solves 2").exit_code, 0);
  const std::string page = testing::slurp(fs::path(folder("a")) / "report.html");
  const nlohmann::json test = last_of(folder("a"), "test");
  EXPECT_NE(page.find(fmt::format("<td class=n>{:.4g}", test.at("bits per byte").get<double>())),
            std::string::npos);
  EXPECT_GT(last_of(folder("a"), "train").at("peak_mb").get<double>(), 10);
  EXPECT_EQ(count(page, "<div class=heat>"), 2u);
  EXPECT_EQ(count(page, " style='--h:"), 2u * 12) << "each position of both segments";
  EXPECT_EQ(count(page, "behind 12 of history"), 1u);
  EXPECT_GE(count(page, "<svg"), 12u);
  EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
  for (const char* outside : {"http:", "https:", "<script", "src=", "nan", "inf\""})
    EXPECT_EQ(count(page, outside), 0u) << outside;
  EXPECT_EQ(count(page, "text <b>"), 0u) << "the name of the data is not escaped";
  EXPECT_GE(count(page, "text &lt;b&gt;"), 1u);
  EXPECT_EQ(count(page, "class=memory>"), 0u) << "the model has none";
}

TEST_F(ReportTest, RunsStandSideBySideWithWhatDiffers) {
  const std::string out = folder("both.html");
  ASSERT_EQ(run_deq("report " + folder("a") + " " + folder("b") + " --out " + out).exit_code, 0);
  const std::string page = testing::slurp(out);
  EXPECT_EQ(count(page, "Where the configurations differ"), 1u);
  const size_t differ = page.find("Where the configurations differ");
  EXPECT_LT(page.find("<td>depth", differ), page.find("</table>", differ));
  EXPECT_GT(page.find("<td>batch", differ), page.find("</table>", differ));
  EXPECT_EQ(count(page, "is an explicit network of depth 2"), 1u);
}

/// A row of the first table, cell by cell.
std::vector<std::string> cells_of_first_row(const std::string& page) {
  const size_t begin = page.find("<tr><td>"), end = page.find('\n', begin);
  std::vector<std::string> cells;
  for (size_t at = page.find("<td", begin); at < end; at = page.find("<td", at + 1)) {
    const size_t text = page.find('>', at) + 1;
    cells.push_back(page.substr(text, page.find_first_of("<\n", text) - text));
  }
  return cells;
}

TEST_F(ReportTest, TheSummaryIsOfTheTestOrElseOfTheBestValidation) {
  const std::string copy = folder("summary");
  fs::copy(folder("a"), copy);
  const auto valid = [](int step, double loss, double residual) {
    return fmt::format(R"({{"step":{},"kind":"valid","loss":{},"bits per byte":{},"residual":{},)"
                       R"("converged_share":{},"evaluations":{},"seconds":{},"peak_mb":7}})"
                       "\n",
                       step, loss, 2 * loss, residual, residual * 4, step + 0.5, 60 * step);
  };
  std::string lines = valid(2, 3, 0.01) + valid(4, 1, 0.02) + valid(6, 2, 0.04);
  const auto row = [&] {
    testing::spill(fs::path(copy) / "metrics.jsonl", lines);
    EXPECT_EQ(run_deq("report " + copy + " --solves 0").exit_code, 0);
    std::vector<std::string> cells =
        cells_of_first_row(testing::slurp(fs::path(copy) / "report.html"));
    EXPECT_EQ(cells.size(), 12u);
    cells.erase(cells.begin());  // its name
    return fmt::format("{}", fmt::join(cells, " "));
  };
  EXPECT_EQ(row(), "2 4 – – 0.02 8.00% 4.5 – 6 6.0 7");
  lines += R"({"step":6,"kind":"test","loss":1.5,"bits per byte":3.25,"residual":0.05,)"
           R"("converged_share":0.5,"evaluations":9,"peak_mb":8})"
           "\n";
  EXPECT_EQ(row(), "2 4 3.25 – 0.05 50.00% 9 – 6 6.0 8");
}

TEST_F(ReportTest, AMemoryIsDrawnAlongAProblem) {
  const std::string run = folder("memory");
  ASSERT_EQ(run_deq("train " + run +
                    " --task strings --task-operation reverse --task-valid 4 --task-test 4 --cell "
                    "ntm --cell-width 9 --cell-slots 5 --cell-slot-width 4 --cell-read-heads 2 "
                    "--depth 1 --steps 1 --batch 4 --threads 1 2>&1")
                .exit_code,
            0);
  ASSERT_EQ(run_deq("report " + run).exit_code, 0);
  const std::string page = testing::slurp(fs::path(run) / "report.html");
  const size_t table = page.find("<table class=memory>");
  ASSERT_NE(table, std::string::npos);
  const std::string memory = page.substr(table, page.find("</table>", table) - table);
  EXPECT_EQ(count(memory, "<tr>"), 4u) << "the problem, a head that writes, two that read";
  for (const char* name : {"<th>write<", "<th>read 1<", "<th>read 2<"})
    EXPECT_EQ(count(memory, name), 1u) << name;
  const size_t places = count(memory, "<th>") - 4;
  EXPECT_GT(places, 1u);
  EXPECT_EQ(count(memory, "<td"), 3 * places);
  const TrainedModel model = load_run(run);
  model.model->eval();
  const at::Tensor problem = load_corpus(model, "").valid.tokens[0].to(at::kLong);
  ASSERT_EQ(int64_t(places), problem.size(0));
  std::string drawn;
  for (size_t at = memory.find("<td"); at != std::string::npos; at = memory.find("<td", at + 1)) {
    const size_t text = memory.find('>', at) + 1;
    drawn += memory.substr(text, memory.find_first_of("<\n", text) - text) + " ";
  }
  std::string said;
  for (const MemoryTrack& track : memory_tracks(*model.model, problem))
    said += fmt::format("{} ", fmt::join(track.at, " "));
  EXPECT_EQ(drawn, said);
  EXPECT_GE(count(memory, "'--h:0.00'"), 3u) << "the lowest slot of each head";
  EXPECT_GE(count(memory, "'--h:1.00'"), 1u) << "the highest of one that moved";
}

TEST_F(ReportTest, RunsOfDifferentVocabulariesAreSaidToBe) {
  const auto warned = [&](const std::string& others) {
    const std::string out = folder("vocabularies.html");
    EXPECT_EQ(run_deq("report " + folder("a") + others + " --solves 0 --out " + out).exit_code, 0);
    return count(testing::slurp(out), "different vocabularies");
  };
  EXPECT_EQ(warned(" " + folder("b")), 0u);
  const std::string other = folder("other");
  fs::copy(folder("a"), other);
  testing::spill(fs::path(other) / "vocab.txt", "another\n");
  EXPECT_EQ(warned(" " + other), 1u);
}

TEST_F(ReportTest, EverySeriesLooksDifferent) {
  std::string runs;
  for (int i = 0; i < 10; ++i) {
    fs::copy(folder("a"), folder("a" + std::to_string(i)));
    runs += " " + folder("a" + std::to_string(i));
  }
  const std::string out = folder("ten.html");
  ASSERT_EQ(run_deq("report" + runs + " --solves 0 --out " + out).exit_code, 0);
  const std::string page = testing::slurp(out);
  EXPECT_GE(count(page, "<polyline class='s0'"), 1u);
  EXPECT_EQ(count(page, "<polyline class='s0'"), count(page, "<polyline class='s0 d1'"));
  EXPECT_EQ(count(page, "class='key s1 d1'"), count(page, "class='key s1'"));
}

TEST_F(ReportTest, DataThatAreGoneAreSaidToBeMissing) {
  const std::string copy = folder("moved");
  fs::copy(folder("a"), copy);
  std::string config = testing::slurp(fs::path(copy) / "config.toml");
  const size_t at = config.find("text <b>.txt");
  ASSERT_NE(at, std::string::npos);
  testing::spill(fs::path(copy) / "config.toml", config.replace(at, 4, "gone"));
  ASSERT_EQ(run_deq("report " + copy).exit_code, 0);
  const std::string page = testing::slurp(fs::path(copy) / "report.html");
  EXPECT_EQ(count(page, "Left out: "), 1u);
  EXPECT_EQ(count(page, "<div class=heat>"), 0u);
  expect_one_error_line("report " + copy + " --data " + folder("nothing.txt"), "nothing.txt");
}

TEST_F(ReportTest, AGradientThatSolvesInItsOwnWayHasNoParts) {
  const std::string run = folder("unrolled"), text = (*scratch_ / "text <b>.txt").string();
  ASSERT_EQ(run_deq("train " + run + " --data '" + text +
                    "' --task bytes --steps 2 --gradient unrolled --gradient-steps 3 "
                    "--eval-subsequence 4" +
                    kPlain + " 2>&1")
                .exit_code,
            0);
  EXPECT_EQ(run_deq("report " + run + " --solves 2").exit_code, 0);
}

TEST_F(ReportTest, AKilledRunIsReportedUpToItsLastWholeLine) {
  const std::string copy = folder("killed");
  fs::copy(folder("a"), copy);
  const fs::path metrics = fs::path(copy) / "metrics.jsonl";
  testing::spill(metrics, testing::slurp(metrics) + "{\"step\": 13, \"kind\": \"tra");
  EXPECT_EQ(run_deq("report " + copy + " --solves 0").exit_code, 0);
  const std::string page = testing::slurp(fs::path(copy) / "report.html");
  const auto steps = [&](const std::string& step) {
    return count(page, "<td class=n>" + step + "\n") + count(page, "<td class=n>" + step + "<");
  };
  EXPECT_GE(steps("12"), 1u) << "the last step";
  EXPECT_EQ(steps("13"), 0u);
}

TEST(Chart, NumbersItsAxesShortly) {
  for (const auto& [largest, label] : std::map<double, std::string>{
           {4e3, "2000"}, {4e4, "20k"}, {4e6, "2M"}, {4e9, "2G"}, {4e12, "2T"}, {4e-3, "0.002"}}) {
    const std::string drawn = line_chart({{"a", {{0, 1}, {largest, 2}}}}, {"title", "x", "y"});
    EXPECT_NE(drawn.find(">" + label + "<"), std::string::npos) << drawn;
  }
}

TEST_F(ReportTest, BadInputIsOneLineAndLosesNothing) {
  const std::string copy = folder("bad");
  fs::copy(folder("a"), copy);
  const fs::path metrics = fs::path(copy) / "metrics.jsonl", page = fs::path(copy) / "report.html";
  const std::string old = "<!doctype html>\n<!-- deq report -->\nold";
  testing::spill(page, old);
  testing::spill(metrics, "{\"step\": 1, \"kind\": \"train\", \"loss\": 5}\nnonsense\n");
  expect_one_error_line("report " + copy, "metrics.jsonl:2: 'nonsense'; expected a JSON object");
  testing::spill(metrics, "{\"step\": 1, \"kind\": \"trian\"}\n");
  expect_one_error_line("report " + copy, "kind 'trian'; known: pretrain, train, valid, test");
  testing::spill(metrics, "");
  expect_one_error_line("report " + copy, "has no line of metrics.jsonl yet");
  testing::spill(metrics, "{\"step\": 1, \"kind\": \"train\", \"loss\": \"low\"}\n");
  expect_one_error_line("report " + copy, "expected a number or null");
  EXPECT_EQ(testing::slurp(page), old);
  const std::string weights = testing::slurp(fs::path(copy) / "best.safetensors");
  expect_one_error_line("report " + folder("a") + " --out " + copy + "/best.safetensors",
                        "exists and is no report");
  EXPECT_EQ(testing::slurp(fs::path(copy) / "best.safetensors"), weights);
  testing::spill(fs::path(copy) / "best.safetensors", weights.substr(0, weights.size() - 9));
  testing::spill(metrics, "{\"step\": 1, \"kind\": \"train\", \"loss\": 5}\n");
  expect_one_error_line("report " + copy, "best.safetensors");
  expect_one_error_line("report " + folder("nowhere"), "nowhere");
  const std::string copies = folder("copies");
  ASSERT_EQ(run_deq("train " + copies + kCopy + " --steps 2" + kPlainSequences + " 2>&1").exit_code,
            0);
  expect_one_error_line("report " + folder("a") + " " + copies, "runs cannot be compared");
  expect_one_error_line("report " + folder("a") + " " + folder("a") + "/", "is named twice");
  expect_one_error_line("report " + folder("a") + " --solves 0 --data x", "data = x: nothing is");
}

}  // namespace
}  // namespace deq
