// Training on several processes of which one fails: one line for each, and nothing lost.
#include <gtest/gtest.h>

#include "tests/cli/processes.h"

namespace deq {
namespace {

using testing::as_rank;
using testing::children_of;
using testing::Clock;
using testing::comes;
using testing::EndlessRun;
using testing::expect_one_error_line;
using testing::expect_same_run;
using testing::free_port;
using testing::on_text;
using testing::run_command;
using testing::run_deq;
using testing::Running;
using testing::seconds_since;
using testing::write_text;

class Faults : public EndlessRun {};

TEST_F(Faults, AKilledProcessIsMissedByAllAtOnce) {
  DEQ_NEEDS_SEVERAL;
  for (const size_t killed : {0, 1}) {
    begin(2);
    const auto start = Clock::now();
    ::kill(ranks_[killed], SIGKILL);
    EXPECT_EQ(run_->wait(), 137);
    EXPECT_LT(seconds_since(start), 2);
    expect_lines(2);
    EXPECT_NE(run_->said().find(fmt::format("rank {} was killed: Killed", killed)),
              std::string::npos);
    EXPECT_NE(run_->said().find(
                  fmt::format("rank {} is gone, while rank {} was at ", killed, 1 - killed)),
              std::string::npos)
        << run_->said();
    expect_an_end();
    std::filesystem::remove_all(folder());
  }
}

TEST_F(Faults, AStoppedProcessIsWaitedForAsLongAsWasSaid) {
  DEQ_NEEDS_SEVERAL;
  begin(2);
  run_.reset();
  std::filesystem::remove_all(folder());
  run_.emplace(scratch_, "train " + folder() + options_ + " --shards 4 --processes 2 --timeout 3");
  ASSERT_TRUE(comes(folder() + "/last.safetensors", *run_));
  ranks_ = children_of(run_->pid());
  ASSERT_EQ(ranks_.size(), 2u);
  const auto start = Clock::now();
  ::kill(ranks_[1], SIGSTOP);
  EXPECT_EQ(run_->wait(), 1);
  EXPECT_GT(seconds_since(start), 2.5);
  EXPECT_LT(seconds_since(start), 8);
  expect_lines(1);
  EXPECT_NE(run_->said().find("no answer from another process within 3 s"), std::string::npos)
      << run_->said();
  expect_an_end();
}

TEST_F(Faults, NoProcessOutlivesTheOneThatStartedIt) {
  DEQ_NEEDS_SEVERAL;
  begin(2);
  ::kill(run_->pid(), SIGKILL);
  run_->wait();
  for (int i = 0; i < 200 && ::kill(ranks_[1], 0) == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  expect_an_end();
}

TEST_F(Faults, WhoIsAskedToStopTakesTheOthersAlong) {
  DEQ_NEEDS_SEVERAL;
  for (const bool starter : {true, false}) {
    begin(2);
    ::kill(starter ? run_->pid() : ranks_[1], SIGTERM);
    EXPECT_EQ(run_->wait(), 130);
    expect_lines(0);
    expect_an_end();
    std::filesystem::remove_all(folder());
  }
}

TEST_F(Faults, ADiskThatIsFullEndsAll) {
  DEQ_NEEDS_SEVERAL;
  options_ = on_text(write_text(scratch_)) + " --shards 4";
  ASSERT_EQ(run_deq("train " + folder() + options_).exit_code, 0);
  const auto before = testing::slurp(scratch_ / "run" / "last.safetensors");
  const auto output = run_command(
      "trap '' XFSZ; ulimit -f 60; " +
      testing::limited("train " + folder() + " --resume --steps 60 --processes 2 2>&1 >/dev/null"));
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_EQ(std::count(output.text.begin(), output.text.end(), '\n'), 2) << output.text;
  EXPECT_NE(output.text.find("last.safetensors"), std::string::npos) << output.text;
  EXPECT_NE(output.text.find("error: rank 0: "), std::string::npos) << output.text;
  EXPECT_EQ(testing::slurp(scratch_ / "run" / "last.safetensors"), before);
}

TEST_F(Faults, ProcessesThatWereStartedByHandMeet) {
  DEQ_NEEDS_SEVERAL;
  options_ = on_text(write_text(scratch_)) + " --shards 2 --timeout 60";
  const int port = free_port();
  Running first(scratch_, "train " + folder() + options_, as_rank(0, port));
  Running second(scratch_, "train " + (scratch_ / "none").string() + options_, as_rank(1, port));
  EXPECT_EQ(first.wait(), 0) << first.said();
  EXPECT_EQ(second.wait(), 0) << second.said();
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "none"));  // rank 0 alone has a folder
  ASSERT_EQ(run_deq("train " + (scratch_ / "one").string() + options_).exit_code, 0);
  expect_same_run(scratch_ / "one", folder());
}

TEST_F(Faults, WhatDiffersIsNamedBeforeThereIsARun) {
  DEQ_NEEDS_SEVERAL;
  options_ = on_text(write_text(scratch_)) + " --shards 2 --timeout 60";
  const int port = free_port();
  Running first(scratch_, "train " + folder() + options_, as_rank(0, port));
  Running second(scratch_, "train " + folder() + options_ + " --rate 0.5", as_rank(1, port));
  EXPECT_EQ(first.wait(), 1);
  EXPECT_EQ(second.wait(), 1);
  const std::string line =
      "error: rank 1 has rate = 0.5, rank 0 rate = 0.001; expected the same of all processes\n";
  EXPECT_EQ(first.said(), line);
  EXPECT_EQ(second.said(), line);
  EXPECT_FALSE(std::filesystem::exists(folder()));

  testing::spill(scratch_ / "other.txt", testing::small_text() + "another line\n");
  std::string other = options_;
  other.replace(other.find("text.txt"), 8, "other.txt");
  Running third(scratch_, "train " + folder() + options_, as_rank(0, port + 1));
  Running fourth(scratch_, "train " + folder() + other, as_rank(1, port + 1));
  EXPECT_EQ(third.wait(), 1);
  EXPECT_EQ(fourth.wait(), 1);
  EXPECT_EQ(third.said(), fourth.said());
  EXPECT_EQ(third.said().rfind("error: rank 1 has ", 0), 0u) << third.said();
  EXPECT_NE(third.said().find("data (SHA-256)"), std::string::npos) << third.said();
  EXPECT_FALSE(std::filesystem::exists(folder() + "/config.toml"));
}

TEST_F(Faults, WhoDoesNotComeIsNamed) {
  DEQ_NEEDS_SEVERAL;
  options_ = on_text(write_text(scratch_)) + " --shards 2 --timeout 1";
  const int port = free_port();
  Running alone(scratch_, "train " + folder() + options_, as_rank(0, port));
  EXPECT_EQ(alone.wait(), 1);
  EXPECT_EQ(alone.said(),
            fmt::format("error: rank 1 did not come to 127.0.0.1:{} within 1 s, which rank 0 "
                        "waited; expected 2 processes\n",
                        port));
  EXPECT_FALSE(std::filesystem::exists(folder()));
}

TEST_F(Faults, ThatCannotBeSharedIsRefusedOnce) {
  DEQ_NEEDS_SEVERAL;
  const std::string run = "train " + folder() + on_text(write_text(scratch_));
  expect_one_error_line(run + " --processes 2 --shards 3",
                        "shards = 3 with 2 processes; expected a multiple of 2");
  expect_one_error_line(run + " --processes 3", "batch = 4 with shards = 3; expected a multiple");
  expect_one_error_line(run.substr(0, run.find(folder())) + run.substr(run.find(" --data")) +
                            " --dry-run --processes 2",
                        "--dry-run with 2 processes; expected one");
  EXPECT_FALSE(std::filesystem::exists(folder()));
  EXPECT_EQ(run_deq(run + " --processes 0 2>&1").exit_code, 2);
  EXPECT_EQ(run_deq(run + " --timeout 0 2>&1").exit_code, 2);
}

}  // namespace
}  // namespace deq
