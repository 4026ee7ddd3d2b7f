// The models that come with the repository, as a newcomer meets them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::run_deq;

const fs::path kModel = fs::path(DEQ_SOURCE_DIR) / "models" / "shakespeare";
const fs::path kSudoku = fs::path(DEQ_SOURCE_DIR) / "models" / "sudoku";
const fs::path kMazes = fs::path(DEQ_SOURCE_DIR) / "models" / "mazes";

TEST(Pretrained, GeneratesFromAFolderThatItMustNotWriteTo) {
  const testing::Scratch scratch;
  const fs::path copy = scratch / "model";
  fs::copy(kModel, copy);
  fs::permissions(copy, fs::perms::owner_read | fs::perms::owner_exec);
  const auto result = run_deq("generate " + copy.string() +
                              " --prompt 'ROMEO:' --tokens 200 --seed 1 --threads 1 2>&1");
  fs::permissions(copy, fs::perms::owner_all);
  EXPECT_EQ(result.exit_code, 0) << result.text;
  EXPECT_EQ(result.text.rfind("ROMEO:", 0), 0u);
  const size_t at = result.text.find("converged: ");
  ASSERT_NE(at, std::string::npos) << result.text;
  EXPECT_GE(std::stoi(result.text.substr(at + 11)), 190) << result.text;
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(copy)) ++files;
  EXPECT_EQ(files, 3u);
}

TEST(Pretrained, IsSmallAndNamesNoPlaceOfWhoeverTrainedIt) {
  size_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(kModel)) bytes += fs::file_size(entry.path());
  EXPECT_LE(bytes, 5u << 20);
  const std::string config = testing::slurp(kModel / "config.toml");
  EXPECT_EQ(config.find("\"/"), std::string::npos) << config;
}

nlohmann::json evaluated(const std::string& arguments) {
  const auto result = run_deq("eval " + kModel.string() + " --json " + arguments);
  EXPECT_EQ(result.exit_code, 0) << result.text;
  return nlohmann::json::parse(result.text);
}

TEST(Pretrained, HasTheLossThatIsSaid) {  // docs/results.md
  const char* data = std::getenv("DEQ_DATA_DIR");
  if (!data) GTEST_SKIP() << "DEQ_DATA_DIR is not set";
  const std::string text = (fs::path(data) / "tinyshakespeare" / "input.txt").string();
  const nlohmann::json found = evaluated("--data " + text);
  EXPECT_NEAR(found.at("bits per character").get<double>(), 2.4997, 1e-3);
  EXPECT_GT(found.at("converged_share").get<double>(), 0.7);
}

TEST(Pretrained, BeginsATextWell) {  // an equal share for each character would be 6 bits
  const char* data = std::getenv("DEQ_DATA_DIR");
  if (!data) GTEST_SKIP() << "DEQ_DATA_DIR is not set";
  const testing::Scratch scratch;
  const std::string text = testing::slurp(fs::path(data) / "tinyshakespeare" / "input.txt"),
                    end = (scratch / "end").string();
  testing::spill(end, text.substr(text.size() - 12000));
  const nlohmann::json found =
      evaluated("--max-steps 40 --beginnings 40 --split all --data " + end);
  const auto bits = [&](size_t group) {
    return found.at("beginnings").at(group).at("loss").get<double>() / std::log(2);
  };
  EXPECT_LT(bits(0), 4.3);
  EXPECT_LT(bits(1), 3.6);
  EXPECT_LT(bits(2), 3.1);
}

TEST(Pretrained, RoundedWeightsCostNoPerplexity) {  // within 0.1%
  const char* data = std::getenv("DEQ_DATA_DIR");
  if (!data) GTEST_SKIP() << "DEQ_DATA_DIR is not set";
  const testing::Scratch scratch;
  const std::string text = testing::slurp(fs::path(data) / "tinyshakespeare" / "input.txt"),
                    end = (scratch / "end").string();
  testing::spill(end, text.substr(text.size() - 4000));
  const auto bits = [&](const std::string& weights) {
    const auto found = evaluated("--data " + end + " --split all --weight-type " + weights);
    EXPECT_EQ(found.at("weight_type"), weights);
    return found.at("bits per character").get<double>();
  };
  EXPECT_NEAR(bits("bfloat16"), bits("exact"), std::log2(1.001));
}

TEST(PretrainedSudoku, IsSmallAndNamesNoPlaceOfWhoeverTrainedIt) {
  size_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(kSudoku)) bytes += fs::file_size(entry.path());
  EXPECT_LE(bytes, 100u << 10);
  const std::string config = testing::slurp(kSudoku / "config.toml");
  EXPECT_EQ(config.find("\"/"), std::string::npos) << config;
}

TEST(PretrainedSudoku, SolvesOneBoardAndSaysThatAnotherIsBeyondIt) {
  const testing::Scratch scratch;
  const fs::path copy = scratch / "model";
  fs::copy(kSudoku, copy);
  fs::permissions(copy, fs::perms::owner_read | fs::perms::owner_exec);  // its threshold is there
  const auto result =
      run_deq("answer " + copy.string() + " " + (copy / "boards.txt").string() + " --json");
  fs::permissions(copy, fs::perms::owner_all);
  EXPECT_EQ(result.exit_code, 3) << result.text;
  std::istringstream lines(result.text);
  std::vector<nlohmann::json> found;
  for (std::string line; std::getline(lines, line);) found.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(found.size(), 2u) << result.text;
  EXPECT_TRUE(found[0].at("trusted").get<bool>()) << found[0];
  EXPECT_TRUE(found[0].at("valid").get<bool>()) << found[0];
  EXPECT_FALSE(found[1].at("trusted").get<bool>()) << found[1];
}

TEST(PretrainedMazes, SolvesLargerOnesThanItWasTrainedOnAndRests) {
  EXPECT_LE(fs::file_size(kMazes / "best.safetensors"), 100'000u);
  const auto found = nlohmann::json::parse(
      run_deq("eval " + kMazes.string() + " --split 17 --task-test 12 --json --threads 1").text);
  EXPECT_EQ(found.at("exact_share").get<double>(), 1.0);
  EXPECT_EQ(found.at("converged_share").get<double>(), 1.0);
  const auto shown = run_deq("answer " + kMazes.string() + " " + (kMazes / "mazes.txt").string() +
                             " --pretty --quiet --threads 1");
  EXPECT_EQ(shown.exit_code, 0) << shown.text;
  EXPECT_SAYS(shown.text, "trusted; checked: valid; a size not trained on");
}

}  // namespace
}  // namespace deq
