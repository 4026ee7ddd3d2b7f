// Training on several processes: to the bits of one, and with one line for whatever goes wrong.
#include "tests/cli/processes.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <random>

#include "deq/distributed/rendezvous.h"

namespace deq {
namespace {

using testing::children_of;
using testing::comes;
using testing::expect_one_error_line;
using testing::expect_same_run;
using testing::kCopy;
using testing::kSmallSequences;
using testing::on_text;
using testing::run_command;
using testing::run_deq;
using testing::Running;
using testing::Scratch;
using testing::write_text;
using Clock = std::chrono::steady_clock;

#define DEQ_NEEDS_SEVERAL \
  if (!can_join()) GTEST_SKIP() << why_alone()

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The same run on so many processes each time.
void expect_the_same_on(const std::vector<int>& processes, const std::string& options) {
  const Scratch scratch;
  for (const int count : processes) {
    const auto output = run_deq(fmt::format("train {}/{}{} --processes {} --timeout 60 2>&1",
                                            scratch.folder().string(), count, options, count));
    ASSERT_EQ(output.exit_code, 0) << count << "\n" << output.text;
    if (count != processes.front())
      expect_same_run(scratch / std::to_string(processes.front()), scratch / std::to_string(count));
  }
}

TEST(Processes, GiveTheBitsOfOne) {
  DEQ_NEEDS_SEVERAL;
  const Scratch scratch;
  const std::string text = write_text(scratch);
  const std::string cut = " --data " + text +
                          " --task bytes --length 12 --history 12 --eval-lanes 5 --eval-batch 3"
                          " --eval-length 12 --batch 12";
  const std::string stirred =
      " --max-steps 6 --gradient-max-steps 6 --fewer-steps 2 --pretrain-steps 3 --steps 25"
      " --jacobian-weight 0.1 --eval-every 9 --save-every 4 --log-every 1 --threads 1"
      " --input-dropout 0.1 --output-dropout 0.1 --restart 0.1 --accumulate 2 --ema 0.9";
  expect_the_same_on({1, 2, 3, 4},
                     cut + stirred +
                         " --shards 12 --cell-width 16 --cell-heads 2 --cell-inner 24"
                         " --cell-dropout-hidden 0.1 --cell-dropout-attention 0.1"
                         " --embedding-cutoffs 20,60 --embedding-dropout 0.1 --mixture-experts 2");
  expect_the_same_on({1, 4}, cut + stirred +
                                 " --shards 4 --cell trellisnet --cell-hidden 12 --cell-output 8"
                                 " --cell-dropout-weight 0.2 --subsequence 5");
}

TEST(Processes, GiveTheBitsOfOneForProblems) {
  DEQ_NEEDS_SEVERAL;
  expect_the_same_on({1, 2, 4}, kSmallSequences + kCopy + " --shards 4");
  const std::string sudoku =
      " --task sudoku --task-side 4 --task-pool 4 --task-train 96 --task-valid 10 --task-test 7"
      " --cell groups --cell-width 6 --cell-inner 8 --init-std 0.2 --embedding-init-std 0.5"
      " --solver picard --max-steps 10 --gradient unrolled --gradient-steps 3 --start mixed"
      " --noise 0.02 --ema 0.9 --batch 12 --steps 15 --eval-every 10 --log-every 1 --threads 1"
      " --shards 4";
  expect_the_same_on({1, 2, 4}, sudoku +
                                    " --carry 5 --carry-right 3 --carry-over 0.3"
                                    " --carry-grace 1 --rest-weight 0.1");
  expect_the_same_on({1, 4}, sudoku + " --segments 3 --progressive true");
}

TEST(Processes, SayHowManyTheyAreAndWhatTheyWaited) {
  DEQ_NEEDS_SEVERAL;
  const Scratch scratch;
  const std::string options = on_text(write_text(scratch)) + " --processes 2";
  ASSERT_EQ(run_deq("train " + (scratch / "run").string() + options).exit_code, 0);
  int64_t steps = 0;
  std::istringstream lines(testing::slurp(scratch / "run" / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.at("kind") == "valid" || row.at("kind") == "test") continue;
    ++steps;
    EXPECT_EQ(row.at("processes"), 2);
    EXPECT_GE(row.at("waited").get<double>(), 0);
    EXPECT_LE(row.at("waited").get<double>(), 0.5);  // of two, a mean of which one is 0
  }
  EXPECT_EQ(steps, 40);
  // As many shards as processes, unless said.
  EXPECT_NE(testing::slurp(scratch / "run" / "config.toml").find("shards = 2\n"),
            std::string::npos);
}

TEST(Processes, ARunGoesOnWithAnotherNumber) {
  DEQ_NEEDS_SEVERAL;
  const Scratch scratch;
  const std::string options = on_text(write_text(scratch)) + " --shards 4";
  const std::string whole = (scratch / "whole").string(), parts = (scratch / "parts").string();
  ASSERT_EQ(run_deq("train " + whole + options).exit_code, 0);
  Running first(scratch, "train " + parts + options + " --processes 2");
  ASSERT_TRUE(comes(parts + "/last.safetensors"));
  const std::vector<pid_t> ranks = children_of(first.pid());
  if (ranks.size() == 2) ::kill(ranks[1], SIGINT);
  const int code = first.wait();
  EXPECT_TRUE(code == 130 || code == 0) << first.said();
  for (const char* count : {"4", "1"})
    ASSERT_EQ(run_deq("train " + parts + " --resume --processes " + count).exit_code, 0);
  expect_same_run(whole, parts);
}

/// A run without end, in which step after step is taken.
class Faults : public ::testing::Test {
 protected:
  void begin(int count, const std::string& more = "") {
    options_ = on_text(write_text(scratch_));
    options_.replace(options_.find("--steps 40"), 10, "--steps 1000000");
    run_.emplace(scratch_, fmt::format("train {} {} --shards 4 --processes {} --timeout 60 {}",
                                       folder(), options_, count, more));
    ASSERT_TRUE(comes(folder() + "/last.safetensors")) << run_->said();
    ranks_ = children_of(run_->pid());
    ASSERT_EQ(int(ranks_.size()), count);
  }

  std::string folder() const { return (scratch_ / "run").string(); }

  /// All have ended, and the run goes on from what is on disk.
  void expect_an_end() {
    for (const pid_t rank : ranks_) EXPECT_NE(::kill(rank, 0), 0);
    EXPECT_EQ(run_deq("train " + folder() + " --resume --steps 1 2>&1").exit_code, 0);
  }

  /// So many lines, each of which begins as an error does.
  void expect_lines(int64_t lines) {
    const std::string said = run_->said();
    int64_t found = 0;
    std::istringstream in(said);
    for (std::string line; std::getline(in, line); ++found)
      EXPECT_EQ(line.rfind("error: ", 0), 0u) << said;
    EXPECT_EQ(found, lines) << said;
  }

  Scratch scratch_;
  std::string options_;
  std::optional<Running> run_;
  std::vector<pid_t> ranks_;
};

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
  ASSERT_TRUE(comes(folder() + "/last.safetensors"));
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

/// A port that is free now.
int free_port() {
  return 20000 + int((::getpid() * 7 + Clock::now().time_since_epoch().count() / 1000) % 12000);
}

std::string as_rank(int rank, int port, int size = 2) {
  return fmt::format("env MASTER_ADDR=127.0.0.1 MASTER_PORT={} WORLD_SIZE={} RANK={}", port, size,
                     rank);
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

/// Two machines with a cable between them, as far as the kernel is concerned; root may make them.
class Machines {
 public:
  Machines() {
    const std::string id = std::to_string(::getpid() % 100000);
    first = "dqa" + id, second = "dqb" + id, cable = "dqc" + id;
    const std::string end = "dqd" + id;
    made_ = run_command(fmt::format("(ip netns add {0} && ip netns add {1} && "
                                    "ip link add {2} type veth peer name {3} && "
                                    "ip link set {2} netns {0} && ip link set {3} netns {1} && "
                                    "ip -n {0} addr add 10.77.1.1/24 dev {2} && "
                                    "ip -n {1} addr add 10.77.1.2/24 dev {3} && "
                                    "ip -n {0} link set lo up && ip -n {1} link set lo up && "
                                    "ip -n {0} link set {2} up && ip -n {1} link set {3} up) 2>&1",
                                    first, second, cable, end))
                .exit_code == 0;
  }
  ~Machines() {
    run_command(fmt::format("(ip netns del {}; ip netns del {}) 2>&1", first, second));
  }

  bool made() const { return made_; }
  void set_cable(bool connected) const {
    run_command(fmt::format("ip -n {} link set {} {}", first, cable, connected ? "up" : "down"));
  }
  /// What stands before a command on the machine of a rank.
  std::string on(int rank) const {
    return fmt::format(
        "env MASTER_ADDR=10.77.1.1 MASTER_PORT=29500 WORLD_SIZE=2 RANK={} ip netns exec {}", rank,
        rank == 0 ? first : second);
  }

  std::string first, second, cable;

 private:
  bool made_ = false;
};

TEST_F(Faults, TwoMachinesGiveTheBitsOfOneProcessThoughTheirCableIsPulledForAWhile) {
  DEQ_NEEDS_SEVERAL;
  const Machines machines;
  if (!machines.made()) GTEST_SKIP() << "no network namespaces here";
  options_ = on_text(write_text(scratch_)) + " --shards 2 --timeout 60";
  options_.replace(options_.find("--steps 40"), 10, "--steps 300");
  Running first(scratch_, "train " + folder() + options_, machines.on(0));
  Running second(scratch_, "train " + (scratch_ / "none").string() + options_, machines.on(1));
  ASSERT_TRUE(comes(folder() + "/last.safetensors")) << first.said() << second.said();
  machines.set_cable(false);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  machines.set_cable(true);
  EXPECT_EQ(first.wait(), 0) << first.said();
  EXPECT_EQ(second.wait(), 0) << second.said();
  ASSERT_EQ(run_deq("train " + (scratch_ / "one").string() + options_).exit_code, 0);
  expect_same_run(scratch_ / "one", folder());
}

TEST_F(Faults, ACableThatIsCutEndsBothMachinesInTime) {
  DEQ_NEEDS_SEVERAL;
  const Machines machines;
  if (!machines.made()) GTEST_SKIP() << "no network namespaces here";
  options_ = on_text(write_text(scratch_)) + " --shards 2 --timeout 4";
  options_.replace(options_.find("--steps 40"), 10, "--steps 1000000");
  Running first(scratch_, "train " + folder() + options_, machines.on(0));
  Running second(scratch_, "train " + (scratch_ / "none").string() + options_, machines.on(1));
  ASSERT_TRUE(comes(folder() + "/last.safetensors")) << first.said() << second.said();
  const auto start = Clock::now();
  machines.set_cable(false);
  EXPECT_EQ(first.wait(), 1);
  EXPECT_EQ(second.wait(), 1);
  EXPECT_GT(seconds_since(start), 3);
  EXPECT_LT(seconds_since(start), 9);
  for (const std::string& said : {first.said(), second.said()}) {
    EXPECT_NE(said.find("no answer from another process within 4 s"), said.npos) << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  }
  EXPECT_EQ(run_deq("train " + folder() + " --resume --steps 1 2>&1").exit_code, 0);
}

bool has_torchrun() {
  return run_command("/usr/bin/python3 -c 'import torch.distributed.run' 2>/dev/null").exit_code ==
         0;
}

/// Debian's needs the streams named.
std::string torchrun(const Scratch& scratch, const std::string& arguments) {
  return fmt::format(
      "/usr/bin/python3 -m torch.distributed.run --no_python --redirects 1 --tee 1 --log_dir {} "
      "--master_port {} --monitor_interval 0.1 --nproc_per_node 2 {}",
      (scratch / "logs").string(), free_port(), arguments);
}

TEST(Torchrun, StartsTheCommandAsItIs) {
  DEQ_NEEDS_SEVERAL;
  if (!has_torchrun()) GTEST_SKIP() << "no torch for /usr/bin/python3";
  const Scratch scratch;
  const std::string options = on_text(write_text(scratch)) + " --shards 4";
  const std::string run = (scratch / "run").string(), one = (scratch / "one").string();
  const auto output =
      run_command(torchrun(scratch, DEQ_BINARY " train " + run + options + " 2>&1"));
  ASSERT_EQ(output.exit_code, 0) << output.text;
  ASSERT_EQ(run_deq("train " + one + options).exit_code, 0);
  expect_same_run(one, run);
}

TEST(Torchrun, StartsAgainWhatWasKilledToTheSameBits) {
  DEQ_NEEDS_SEVERAL;
  if (!has_torchrun()) GTEST_SKIP() << "no torch for /usr/bin/python3";
  const Scratch scratch;
  std::string options = on_text(write_text(scratch)) + " --shards 4";
  options.replace(options.find("--steps 40"), 10, "--steps 400");
  const std::string run = (scratch / "run").string(), one = (scratch / "one").string();
  const std::string command =
      "exec " + torchrun(scratch, "--max_restarts 100 " DEQ_BINARY " train " + run + options +
                                      " >/dev/null 2>&1");
  const pid_t agent = fork();
  if (agent == 0) {
    testing::end_in_time();
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  std::mt19937 random(3);
  int kills = 0, status = 0;
  while (::waitpid(agent, &status, WNOHANG) == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300 + random() % 1500));
    const std::vector<pid_t> ranks = children_of(agent);
    if (ranks.empty() || kills >= 6) continue;
    ::kill(ranks[random() % ranks.size()], SIGKILL);
    ++kills;
  }
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
  EXPECT_GE(kills, 2);
  ASSERT_EQ(run_deq("train " + one + options).exit_code, 0);
  expect_same_run(one, run);
}

}  // namespace
}  // namespace deq
