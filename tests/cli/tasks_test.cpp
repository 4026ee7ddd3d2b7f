// Tasks with an answer and cells with a memory as a user meets them: trained, evaluated on their
// test sets, asked, looked at; and bad input, which is one line before a folder is made.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;
using testing::spill;
using Json = nlohmann::json;

constexpr const char* kFew =
    " --task-train 64 --task-valid 30 --task-test 6 --batch 8 --steps 2 --threads 1";
constexpr const char* kNtm =
    " --cell ntm --cell-width 9 --cell-slots 12 --cell-slot-width 5 --depth 1";
constexpr const char* kStack = " --cell stack-rnn --cell-width 8 --cell-stack-depth 9 --depth 1";

class Tasks : public ::testing::Test {
 protected:
  std::string run() const { return (scratch / "run").string(); }
  void train(const std::string& options) const {
    fs::remove_all(run());
    const auto made = run_deq("train " + run() + options + " 2>&1");
    ASSERT_EQ(made.exit_code, 0) << made.text;
  }
  std::vector<std::string> answer(const std::string& problem, const std::string& how = "") const {
    spill(scratch / "p.txt", problem);
    const auto output =
        run_deq("answer " + run() + " " + (scratch / "p.txt").string() + how + " 2>/dev/null");
    EXPECT_TRUE(output.exit_code == 0 || output.exit_code == 3) << output.text;
    std::vector<std::string> lines;
    std::istringstream text(output.text);
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  /// The exact share of a split.
  double exact(const std::string& how) const {
    const Json row = Json::parse(run_deq("eval " + run() + how + " --json").text);
    return row.at("exact_share");
  }

  /// Images of 4 x 4: one row is bright, the class which.
  std::string images() const {
    for (const auto& [set, count] : {std::pair{"train", 80}, std::pair{"t10k", 16}}) {
      std::string pixels("\0\0\x08\x03\0\0\0", 7), labels("\0\0\x08\x01\0\0\0", 7);
      pixels += char(count);
      labels += char(count);
      pixels += std::string("\0\0\0\x04\0\0\0\x04", 8);
      for (int s = 0; s < count; ++s) {
        labels += char(s % 4);
        for (int i = 0; i < 16; ++i) pixels += char(i / 4 == s % 4 ? 200 + s % 7 : s % 5);
      }
      spill(scratch / fmt::format("{}-images-idx3-ubyte", set), pixels);
      spill(scratch / fmt::format("{}-labels-idx1-ubyte", set), labels);
    }
    return " --data " + scratch.folder().string();
  }

  Scratch scratch;
};

TEST_F(Tasks, BitsByAMemoryThatIsLookedAt) {
  train(std::string(" --task bits --task-bits 2 --task-length 4 --task-test-lengths 7") + kFew +
        kNtm);
  EXPECT_GE(exact(" --split 7"), 0);
  const auto lines = answer("01 11 00\n", " --show");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].rfind("write\t", 0), 0u);
  EXPECT_EQ(lines[1].rfind("read\t", 0), 0u);
  EXPECT_EQ(std::count(lines[0].begin(), lines[0].end(), ' '), 6) << "seven places";
  EXPECT_EQ(std::count(lines[2].begin(), lines[2].begin() + long(lines[2].find('\t')), ' '), 2);
  EXPECT_EQ(answer("01 11 00\n").size(), 1u);
  const Json row = Json::parse(answer("01 11 00\n", " --show --json").at(0));
  EXPECT_EQ(row["memory"]["read"].size(), 7u);
  EXPECT_EQ(row["memory"]["write"].size(), 7u);
  EXPECT_EQ(row["size"], Json({7}));
  EXPECT_FALSE(Json::parse(answer("01 11 00\n", " --json").at(0)).contains("memory"));
}

TEST_F(Tasks, StringsByStacks) {
  train(std::string(" --task strings --task-operation add --task-length 3 --task-test-lengths 5") +
        kFew + kStack + " --cell-stacks 2");
  EXPECT_GE(exact(" --split 5"), 0);
  const auto lines = answer("27+850\n", " --show");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].rfind("stack 1\t", 0), 0u);
  EXPECT_EQ(lines[1].rfind("stack 2\t", 0), 0u);
  EXPECT_EQ(lines[2].find('\t'), 4u) << "a sum of four digits: " << lines[2];
  EXPECT_SAYS(run_deq("data info --task strings").text, "10");
}

TEST_F(Tasks, ListOpsOfAFileByDepth) {
  train(std::string(" --task listops --task-depth 2 --task-length 16 --task-test-depths 4"
                    " --task-every true") +
        kFew + kStack);
  EXPECT_GE(exact(" --split 4"), 0);
  spill(scratch / "x.tsv", "2\t( ( ( [MIN 3 ) 2 ) ] )\n3\t[SM 1 [MAX 1 2 ] ]\n4\t[MAX 4 1 ]\n");
  const std::string data = " --data " + (scratch / "x.tsv").string();
  const Json two = Json::parse(run_deq("eval " + run() + data + " --split 2 --json").text);
  EXPECT_EQ(two["tokens"], 2) << two << "a value at each bracket";
  EXPECT_EQ(
      Json::parse(
          run_deq("eval " + run() + data + " --split 2 --task-every false --json").text)["tokens"],
      1);
  EXPECT_EQ(Json::parse(run_deq("eval " + run() + data + " --split test --json").text)["tokens"],
            4);
  EXPECT_EQ(answer("[SM 1 [MAX 1 2 ] ]\n").at(0).find('\t'), 3u) << "two values";
  expect_one_error_line("eval " + run() + data + " --split 3", "unknown split '3'; known: train");
  spill(scratch / "x.tsv", "3\t[MIN 3 2 ]\n");
  expect_one_error_line("eval " + run() + data, "x.tsv, line 1: an expression of value 2");
}

TEST_F(Tasks, ImagesInEveryOrder) {
  const std::string data =
      images() +
      " --task images --task-valid 20 --batch 10 --steps 60"
      " --threads 1 --rate 0.02 --init-std 0.3 --embedding-init-std 0.5 --clip 1";
  const std::string lstm = " --cell lstm --cell-width 12 --depth 1";
  for (const std::string network :
       {" --task-order grid --pool true --cell conv --cell-width 8 --solver picard --max-steps 6"
        " --gradient unrolled --gradient-steps 6",
        " --task-order rows --row 4", " --task-order pixels", " --task-order permuted"}) {
    train(data + network + (network.find("conv") == std::string::npos ? lstm : ""));
    EXPECT_GE(exact(" --split test"), 0.5) << network;
    const std::string image = "0 0 0 0\n200 200 200 200\n0 0 0 0\n0 0 0 0\n";
    const auto lines = answer(image);
    ASSERT_EQ(lines.size(), 1u) << network;
    EXPECT_EQ(lines[0].find('\t'), 1u) << lines[0];
  }
}

TEST_F(Tasks, BadInputIsOneLineBeforeAFolderIsMade) {
  const std::string to = "train " + run();
  const std::string data = images();
  spill(scratch / "t10k-images-idx3-ubyte", std::string("\0\0\x08\x03\0\0\0\x10", 8));
  const std::vector<std::pair<std::string, std::string>> bad{
      {" --task images" + data + " --cell conv", "t10k-images-idx3-ubyte"},
      {" --task images --cell conv", "data is not set; expected a folder"},
      {" --task images --cell lstm --depth 1", "cell = lstm: it takes sequences"},
      {" --task images --cell conv --row 4", "row = 4: no rows are read"},
      {" --task strings --task-min-length 30", "task-min-length = 30"},
      {" --task strings --task-operation swap", "swap"},
      {" --task strings --data x", "task strings makes its own problems"},
      {" --task listops --task-length 10", "task-length = 10: an expression of depth 6"},
      {" --task listops --data x.tsv", "task listops makes its own"},
      {" --task bits --embedding-width 5", "reading bits has no tables"},
      {" --task strings --reading bits", "expected the numbers of some bits"},
      {" --task series --reading symbols", "reading = symbols: task series is of real values"},
      {" --task strings --cell ntm", "cell = ntm"},
      {std::string(" --task strings") + kStack + " --cell-reads 10",
       "cell-reads = 10: a stack has 9 entries"},
      {" --task bytes --pool true --data x", "pool = true: a text of task bytes"}};
  for (const auto& [options, says] : bad) {
    expect_one_error_line(to + options, says);
    EXPECT_FALSE(fs::exists(run())) << options;
  }
}

TEST_F(Tasks, AProblemThatIsNoneIsOneLine) {
  train(std::string(" --task strings --task-length 4") + kFew + kStack);
  spill(scratch / "p.txt", "123\n12x\n");
  expect_one_error_line("answer " + run() + " " + (scratch / "p.txt").string(),
                        "p.txt, line 2: unknown symbol 'x'; known: 0 1 2");
}

TEST_F(Tasks, MemoriesGenerateText) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "the cat sat on the mat\n";
  spill(scratch / "text.txt", text);
  for (const char* cell : {kNtm, kStack}) {
    train(" --task bytes --data " + (scratch / "text.txt").string() +
          " --batch 4 --length 12 --steps 3 --eval-lanes 4 --eval-length 12 --threads 1" + cell);
    const auto output = run_deq("generate " + run() + " --prompt the --tokens 5 2>&1");
    EXPECT_EQ(output.exit_code, 0) << output.text;
    EXPECT_SAYS(output.text, "explicit network of");
  }
}

}  // namespace
}  // namespace deq
