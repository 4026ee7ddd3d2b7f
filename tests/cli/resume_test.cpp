// Training that is killed at random points and resumed to the same bits.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <random>
#include <thread>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"
#include "tests/cli/trained_run.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::kCopy;
using testing::kSmallSequences;
using testing::losses;
using testing::on_text;
using testing::run_deq;
using testing::Scratch;
using testing::start;
using testing::train_words;
using testing::write_text;

/// A run that is killed at most `most` times, and at least `least` times, against one that is not.
void expect_the_same_bits_after_kills(const Scratch& scratch, const std::string& options, int most,
                                      int least) {
  const std::string whole = (scratch / "whole").string(), killed = (scratch / "killed").string();
  ASSERT_EQ(run_deq("train " + whole + options + " 2>&1").exit_code, 0);

  std::mt19937 random(12);
  std::vector<std::string> words = train_words(killed, options);
  int kills = 0;
  for (int attempt = 0; attempt < 200; ++attempt) {
    if (attempt > 0) words = {"deq", "train", killed, "--resume"};
    if (attempt > 0 && !fs::exists(fs::path(killed) / "config.toml")) {
      fs::remove_all(killed);  // killed before there was a run
      words = train_words(killed, options);
    }
    const pid_t child = start(words);
    // From before the first step to about ten steps later, so that many kills fit into the run.
    std::this_thread::sleep_for(std::chrono::milliseconds(250 + random() % 300));
    int status = 0;
    if (kills < most && waitpid(child, &status, WNOHANG) == 0) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      ++kills;
      continue;
    }
    if (kills >= most) waitpid(child, &status, 0);
    EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    break;
  }
  EXPECT_GE(kills, least);
  EXPECT_EQ(losses(whole), losses(killed));
  EXPECT_EQ(run_deq("eval " + killed + " --json").text.substr(0, 40),
            run_deq("eval " + whole + " --json").text.substr(0, 40));
}

TEST(Run, KilledAtRandomPointsItResumesToTheSameBits) {
  const Scratch scratch;
  expect_the_same_bits_after_kills(scratch, on_text(write_text(scratch)), 24, 5);
}

TEST(Run, OfSequencesKilledAtRandomPointsItResumesToTheSameBits) {
  const Scratch scratch;
  expect_the_same_bits_after_kills(scratch, kCopy + kSmallSequences, 6, 2);
}

}  // namespace
}  // namespace deq
