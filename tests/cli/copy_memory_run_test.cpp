// Copy memory from the command line: what is reported of its answers, and bad input.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::expect_one_error_line;
using testing::kCopy;
using testing::kSmallSequences;
using testing::run_deq;
using testing::Scratch;

TEST(CopyMemoryRun, ReportsWhatWasRecalled) {
  const Scratch scratch;
  const std::string folder = (scratch / "run").string();
  const testing::Output made = run_deq("train " + folder + kCopy + kSmallSequences + " 2>&1");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  EXPECT_SAYS(made.text, "vocabulary 10, 1.2k training symbols");
  EXPECT_SAYS(made.text, "step 9 valid: cross-entropy ");
  EXPECT_SAYS(made.text, " over the 10 recalled; ");
  EXPECT_SAYS(made.text, "% of sequences recalled exactly; residual mean ");
  EXPECT_SAYS(testing::slurp(fs::path(folder) / "metrics.jsonl"), "\"exact_share\":0.0");

  const auto row =
      nlohmann::json::parse(run_deq("eval " + folder + " --json --check-leak --eval-batch 3").text);
  EXPECT_EQ(row.at("tokens"), 7 * 25);
  EXPECT_EQ(row.at("leak"), 0);
  EXPECT_EQ(row.at("cross-entropy"), row.at("loss"));
  EXPECT_GT(row.at("answer_loss"), 0);
  EXPECT_EQ(row.at("exact_share"), 0);
  EXPECT_SAYS(run_deq("eval " + folder + " --split valid").text,
              "recalled; 0.0% of sequences recalled exactly  (225 symbols)");
  expect_one_error_line("eval " + folder + " --data text.txt", "data = 'text.txt'; expected none");
  expect_one_error_line("generate " + folder + " --prompt '1 2'", "answers whole sequences");
  expect_one_error_line("train " + folder + " --resume --task-train-sequences 51",
                        "of 1275 tokens, is not the one that last.safetensors was trained on");
}

TEST(CopyMemoryRun, BadInputIsOneLine) {
  const Scratch scratch;
  int runs = 0;
  const auto expect = [&](const std::string& options, const std::string& text) {
    const std::string folder = (scratch / std::to_string(runs++)).string();
    expect_one_error_line("train " + folder + " --task copy-memory" + kSmallSequences + options,
                          text);
  };
  expect(" --task-train-sequences 3", "batch = 4 of 3 training sequences; expected <= 3");
  expect(" --task-delay 0", "task-delay = 0; expected in [1, 100000]");
  expect(" --task-delay 100000", "sequences of 100020 symbols are 2.3e+09 positions");
  expect(" --data text.txt", "text.txt'; expected none: task copy-memory makes its own sequences");
  expect(" --task-ending nines", "unknown task-ending 'nines'; known: delimiter, recall");
  expect(" --task-min-count 2", "task-min-count is not an option of task 'copy-memory'");
}

}  // namespace
}  // namespace deq
