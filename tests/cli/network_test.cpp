// The other networks as a user meets them: explicit ones, TrellisNets, imported weights, dry runs.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;

class Networks : public ::testing::Test {
 protected:
  static constexpr const char* kSmall =
      " --task bytes --batch 4 --length 12 --steps 3 --eval-lanes 4 --eval-length 12 --threads 1";

  void SetUp() override { testing::spill(scratch / "text.txt", testing::small_text()); }
  std::string folder() const { return (scratch / "run").string(); }
  std::string train(const std::string& network) const {
    return "train " + folder() + " --data " + (scratch / "text.txt").string() + kSmall + network;
  }

  Scratch scratch;
};

TEST_F(Networks, TrainEvaluateAndGenerate) {
  for (const std::string network :
       {" --cell-width 8 --cell-heads 2 --cell-inner 8 --depth 3 --checkpointed true",
        " --cell-width 8 --cell-heads 2 --cell-inner 8 --depth 2 --tied false --injection false",
        " --cell trellisnet --cell-hidden 5 --cell-output 4 --mixture-experts 2 --subsequence 5",
        " --cell lstm --cell-width 8 --depth 2 --tied false"}) {
    fs::remove_all(folder());
    const testing::Output made = run_deq(train(network) + " 2>&1");
    ASSERT_EQ(made.exit_code, 0) << made.text;
    const bool explicit_network = network.find("--depth") != std::string::npos;
    const auto row = nlohmann::json::parse(run_deq("eval " + folder() + " --json").text);
    EXPECT_EQ(row.contains("depth"), explicit_network);
    EXPECT_EQ(row.contains("residual"), !explicit_network) << row;
    const testing::Output text = run_deq("generate " + folder() + " --prompt the --tokens 5 2>&1");
    EXPECT_EQ(text.exit_code, 0) << text.text;
    EXPECT_SAYS(text.text, explicit_network ? "explicit network of" : "evaluations each");
  }
}

TEST_F(Networks, ATextWithoutNewLinesNeedsAPrompt) {
  std::string text = testing::small_text();
  std::replace(text.begin(), text.end(), '\n', ' ');
  testing::spill(scratch / "text.txt", text);
  ASSERT_EQ(run_deq("train " + folder() + " --data " + (scratch / "text.txt").string() +
                    " --task characters --cell-width 8 --cell-heads 2 --cell-inner 8 --batch 4"
                    " --length 12 --steps 3 --eval-lanes 4 --eval-length 12 --threads 1 2>&1")
                .exit_code,
            0);
  expect_one_error_line("generate " + folder(), "has none; expected --prompt TEXT");
  EXPECT_EQ(run_deq("generate " + folder() + " --prompt a --tokens 2 2>&1").exit_code, 0);
}

TEST_F(Networks, WhereWeightsAreReadAsTheyAreItSaysSo) {
  ASSERT_EQ(run_deq(train(" --cell lstm --cell-width 8 --depth 2 --tied false 2>&1")).exit_code, 0);
  expect_one_error_line("eval " + folder() + " --weight-type bfloat16",
                        "weight-type = bfloat16: cell 'lstm'");
}

TEST_F(Networks, OptionsThatDoNotGoTogetherAreOneLine) {
  const std::string cell = " --cell-width 8 --cell-heads 2 --cell-inner 8";
  expect_one_error_line(train(cell + " --depth 4 --rel-tol 1e-3"), "rel-tol = 1e-3");
  expect_one_error_line(train(cell + " --depth 4 --jacobian-weight 1"), "depth 4");
  expect_one_error_line(train(cell + " --depth -1"), "depth = -1");
  expect_one_error_line(train(" --cell lstm --cell-width 8"), "cell = lstm");
  expect_one_error_line(train(" --cell lstm --cell-width 8 --depth 2"), "tied = false");
  expect_one_error_line(train(cell + " --injection false"), "injection = false");
  expect_one_error_line(train(" --cell trellisnet --cell-input 7"), "embedding-tie-weights");
  expect_one_error_line(train(" --cell trellisnet --cell-heads 2"), "cell-heads");
  expect_one_error_line(train(cell + " --cell-causal false --subsequence 4"), "subsequence = 4");
  for (const char* parts : {" --subsequence 4", " --eval-subsequence 4"})
    expect_one_error_line(train(cell + " --solver sweep" + parts),
                          "subsequence = 4: solver sweep goes from position to position");
  expect_one_error_line(train(cell + " --cell-causal false"), "would see the token");
  const std::string trellis = " --cell trellisnet --cell-hidden 4 --cell-output 4";
  expect_one_error_line(train(trellis + " --cell-causal false"), "would see the token");
  expect_one_error_line(train(trellis + " --cell-causal false --cell-kernel 1"),
                        "cell-kernel = 1 with cell-causal = false");
  expect_one_error_line(train(trellis + " --cell-causal false --solver sweep"), "solver = sweep");
}

TEST_F(Networks, AnExplicitRunHasNothingToSolve) {
  ASSERT_EQ(
      run_deq(train(" --cell-width 8 --cell-heads 2 --cell-inner 8 --depth 2 2>&1")).exit_code, 0);
  EXPECT_EQ(testing::slurp(fs::path(folder()) / "config.toml").find("rel-tol"), std::string::npos);
  expect_one_error_line("eval " + folder() + " --max-steps 40", "depth 2");
  expect_one_error_line("generate " + folder() + " --solver broyden", "depth 2");
  expect_one_error_line("eval " + folder() + " --require-converged", "expected one with");
  // A configuration that does not fit its checkpoint.
  expect_one_error_line("train " + folder() + " --resume --cell-inner 9 --steps 4", "inner");
  expect_one_error_line("train " + folder() + " --resume --batch 5 --steps 4", "batch = 5");
}

TEST_F(Networks, ADryRunSaysWhatAStepCosts) {
  const testing::Output output = run_deq(
      "train --dry-run --task-vocabulary 60 --cell trellisnet --cell-hidden 6 --cell-output 4 "
      "--batch 2 --length 8 --history 1 2>&1");
  EXPECT_EQ(output.exit_code, 0) << output.text;
  for (const char* part :
       {"parameters  ", "vocabulary 60", "forward  ", "backward  ", "activations ", "16 tokens"})
    EXPECT_SAYS(output.text, part);
  expect_one_error_line("train --dry-run", "task-vocabulary = 0");
  expect_one_error_line("train --dry-run " + folder(), "expected no RUN");
  expect_one_error_line("train", "RUN is missing");
}

TEST_F(Networks, ADryRunHasTheWholeHistory) {
  const auto activations = [&](const std::string& history) {
    const std::string text =
        run_deq(
            "train --dry-run --task bytes --cell-width 32 --cell-heads 2 --cell-inner 32 "
            "--batch 4 --length 16 --threads 1 --history " +
            history)
            .text;
    return std::stod(text.substr(text.find("activations ") + 12));
  };
  EXPECT_GT(activations("256"), activations("128") + 0.1);
}

TEST_F(Networks, ImportSaysWhatIsWrong) {
  const std::string file = (scratch / "weights.safetensors").string();
  expect_one_error_line("import " + file + " " + folder(), file);
  testing::spill(file, "not a safetensors file at all");
  expect_one_error_line("import " + file + " " + folder(), file);
  EXPECT_FALSE(fs::exists(folder()));
}

TEST(ImportedRun, GeneratesAndTellsItsVocabulary) {
  const char* oracle = std::getenv("DEQ_ORACLE_DIR");
  if (!oracle) GTEST_SKIP() << "DEQ_ORACLE_DIR is not set";
  const Scratch scratch;
  for (const auto& entry : fs::directory_iterator(oracle)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string run = (scratch / entry.path().stem().string()).string();
    const testing::Output made = run_deq("import " + entry.path().string() + " " + run + " 2>&1");
    EXPECT_EQ(made.exit_code, 0) << made.text;
    const testing::Output text =
        run_deq("generate " + run + " --prompt '3 1 4' --tokens 5 --max-steps 100 2>&1");
    EXPECT_EQ(text.exit_code, 0) << text.text;
    EXPECT_SAYS(text.text, "3 1 4 ");
  }
}

}  // namespace
}  // namespace deq
