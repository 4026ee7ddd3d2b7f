// Models that meet a condition of their own as a user meets them: trained, resumed, evaluated,
// asked; and what they refuse, which is one line.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;
using testing::slurp;
using testing::spill;
using Json = nlohmann::json;

constexpr const char* kParity =
    " --task parity --task-test-lengths 9 --task-pool 600"
    " --task-valid 60 --task-test 60 --cell maxsat-chain --max-steps 60 --gradient-max-steps 60"
    " --batch 50 --optimizer sgd --decay constant --clip 1 --threads 1 --seed 2"
    " --eval-every 12 --log-every 1";
constexpr const char* kBoards =
    " --task sudoku --task-side 4 --task-pool 30 --task-train 30 --task-valid 8 --task-test 10"
    " --batch 10 --threads 1";

class Conditions : public ::testing::Test {
 protected:
  std::string run() const { return (scratch / "run").string(); }
  std::string train(const std::string& options) const {
    const auto made = run_deq("train " + run() + options + " 2>&1");
    EXPECT_EQ(made.exit_code, 0) << made.text;
    return made.text;
  }
  Json eval(const std::string& how) const {
    return Json::parse(run_deq("eval " + run() + how + " --json").text);
  }

  Scratch scratch;
};

TEST_F(Conditions, ParityIsLearnedFromOneBit) {
  train(kParity + std::string(" --task-length 5 --rate 0.05 --steps 360 --patience 4"));
  EXPECT_EQ(eval(" --split test")["exact_share"], 1);
  EXPECT_EQ(eval(" --split 9")["exact_share"], 1) << "and goes on to longer ones";
  EXPECT_EQ(eval(" --split 9")["tokens"], 60) << "one bit each";
  spill(scratch / "p.txt", "10110\n00100\n");
  const auto answers =
      run_deq("answer " + run() + " " + (scratch / "p.txt").string() + " 2>/dev/null").text;
  EXPECT_EQ(answers.rfind("1\t", 0), 0u) << answers;
  EXPECT_SAYS(answers, "\n1\t");
  EXPECT_EQ(eval(" --split test --max-steps 1")["converged_share"], 0);
  EXPECT_GT(eval(" --split test")["converged_share"], 0.9);
  const std::string page = (scratch / "page.html").string();
  EXPECT_EQ(run_deq("report " + run() + " --out " + page + " 2>&1").exit_code, 0);
  EXPECT_SAYS(slurp(page), "leave no residual by step");
}

TEST_F(Conditions, AResumedRunDrawsTheSameClauses) {
  const std::string steps = " --steps 70 --save-every 7";
  train(kParity + std::string(" --task-length 9") + steps + " --cell-trial 6 --rate 0.001");
  const std::string whole = slurp(fs::path(run()) / "metrics.jsonl");
  const auto losses = [](const std::string& metrics) {
    std::vector<double> found;
    for (size_t first = 0; first < metrics.size();) {
      const size_t end = metrics.find('\n', first);
      const Json line = Json::parse(metrics.substr(first, end - first));
      if (line.contains("step") && line.contains("gradient_norm")) found.push_back(line["loss"]);
      first = end + 1;
    }
    return found;
  };
  fs::remove_all(run());
  train(kParity + std::string(" --task-length 9 --steps 31 --save-every 7 --cell-trial 6"
                              " --rate 0.001"));
  train(" --resume" + steps);
  const std::vector<double> a = losses(whole), b = losses(slurp(fs::path(run()) / "metrics.jsonl"));
  ASSERT_GE(a.size(), 70u);
  EXPECT_EQ(a, b);
}

TEST_F(Conditions, BoardsByClausesAndByAProgram) {
  for (const char* cell :
       {" --cell maxsat --cell-places 16 --cell-auxiliary 20 --cell-clauses 40 --max-steps 60",
        " --cell optnet --max-steps 60 --rel-tol 1e-6"}) {
    fs::remove_all(run());
    const std::string said = train(kBoards + std::string(cell) + " --steps 6 --rate 0.02 --clip 0");
    EXPECT_SAYS(said, "residual");
    const Json found = eval("");
    EXPECT_EQ(found["tokens"], 160) << "every place of 10 boards";
    EXPECT_GT(found["right_share"], 0.4) << "those that are given are right";
    EXPECT_GE(found["residual"], 0);
    for (const char* kind : {"bench ", "measure gradients ", "measure tolerance "})
      expect_one_error_line(kind + run(), "which meets a condition of its own");
    const auto cost =
        run_deq("measure cost " + run() + " --train 1 --max-steps 60 --threads 1 2>&1");
    EXPECT_EQ(cost.exit_code, 0) << cost.text;
    expect_one_error_line("eval " + run() + " --solver picard", "solver = picard: cell");
  }
}

TEST_F(Conditions, BadInputIsOneLineBeforeAFolderIsMade) {
  const std::vector<std::pair<std::string, std::string>> bad{
      {" --task parity --cell maxsat-chain --depth 2", "depth = 2: cell maxsat-chain"},
      {" --task parity --cell maxsat-chain --solver picard", "cell maxsat-chain meets"},
      {" --task parity --cell maxsat-chain --cell-clauses 0", "clauses"},
      {" --task parity --cell maxsat --cell-places 20", "2 symbols are read and 2 answered"},
      {" --task parity --task-length 0 --cell maxsat-chain", "length"},
      {" --task parity --task-length 1 --cell maxsat-chain", "1 places; expected 2 at least"},
      {" --task parity --data x --cell maxsat-chain", "task parity makes its own problems"},
      {" --task sudoku --cell maxsat-chain", "cell = maxsat-chain: it takes sequences"},
      {" --task sudoku --cell optnet --cell-places 4 --cell-equalities 36",
       "cell-equalities = 36 for 36 numbers"},
      {kBoards + std::string(" --cell maxsat --cell-places 15"), "expected cell-places = 15"},
      {" --task bytes --data x --cell maxsat-chain", "answers problems that stand alone"},
      {" --task sudoku --cell maxsat --task-in-order true", "boards are made, not read"}};
  for (const auto& [options, says] : bad) {
    expect_one_error_line("train " + run() + options, says);
    EXPECT_FALSE(fs::exists(run())) << options;
  }
}

}  // namespace
}  // namespace deq
