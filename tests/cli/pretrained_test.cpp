// The model that comes with the repository, as a newcomer meets it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::run_deq;

const fs::path kModel = fs::path(DEQ_SOURCE_DIR) / "models" / "shakespeare";

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

TEST(Pretrained, HasTheLossThatIsSaid) {  // docs/results.md
  const char* data = std::getenv("DEQ_DATA_DIR");
  if (!data) GTEST_SKIP() << "DEQ_DATA_DIR is not set";
  const std::string text = (fs::path(data) / "tinyshakespeare" / "input.txt").string();
  const auto evaluated = [&](const std::string& flags) {
    const auto result = run_deq("eval " + kModel.string() + " --data " + text + " --json" + flags);
    EXPECT_EQ(result.exit_code, 0) << result.text;
    return nlohmann::json::parse(result.text);
  };
  const nlohmann::json found = evaluated("");
  const double bits = found.at("bits per character").get<double>();
  EXPECT_NEAR(bits, 2.6405, 1e-3);
  EXPECT_GT(found.at("converged_share").get<double>(), 0.83);
  // A perplexity within 0.1%: bits within log2(1.001).
  EXPECT_NEAR(evaluated(" --weight-type bfloat16").at("bits per character").get<double>(), bits,
              1.4e-3);
}

}  // namespace
}  // namespace deq
