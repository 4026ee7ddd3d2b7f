// Replays what fuzzing has collected, with all that a flipped bit or a lost tail makes of it.
#include <gtest/gtest.h>

#include <map>

#include "fuzz/targets.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using Target = bool (*)(std::string_view);

/// The files of a corpus, by name.
std::map<std::string, std::string> corpus(const std::string& name) {
  const auto root = std::filesystem::path(DEQ_SOURCE_DIR);
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(root / "fuzz" / "corpus" / name)) {
    files[entry.path().filename().string()] = testing::slurp(entry.path());
  }
  return files;
}

void replay(const std::string& name, Target target) {
  const auto files = corpus(name);
  EXPECT_GE(files.size(), 10u);
  for (const auto& [file, bytes] : files) {
    SCOPED_TRACE(file);
    for (size_t size = 0; size <= bytes.size(); ++size) {
      EXPECT_NO_THROW(target(std::string_view(bytes).substr(0, size))) << size;
    }
  }
}

/// The number of single flipped bits that `target` accepts.
size_t accepted_flips(std::string bytes, Target target) {
  EXPECT_TRUE(target(bytes));
  size_t accepted = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const char mask = char(1 << bit % 8);
    bytes[bit / 8] ^= mask;
    EXPECT_NO_THROW(accepted += target(bytes)) << bit;
    bytes[bit / 8] ^= mask;
  }
  return accepted;
}

TEST(Corpus, Safetensors) { replay("safetensors", fuzz::safetensors); }
TEST(Corpus, Config) { replay("config", fuzz::config); }

TEST(Corpus, FlippedBits) {
  EXPECT_EQ(accepted_flips(corpus("safetensors").at("checkpoint"), fuzz::safetensors), 0u);
  EXPECT_GT(accepted_flips(corpus("safetensors").at("types"), fuzz::safetensors), 0u);
  EXPECT_GT(accepted_flips(corpus("config").at("all"), fuzz::config), 0u);
}

}  // namespace
}  // namespace deq
