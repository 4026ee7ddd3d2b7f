// Training on several processes gives the bits of one, whoever starts them.
#include "tests/cli/processes.h"

#include <gtest/gtest.h>

#include <random>

namespace deq {
namespace {

using testing::children_of;
using testing::comes;
using testing::expect_same_run;
using testing::free_port;
using testing::kCopy;
using testing::kSmallSequences;
using testing::on_text;
using testing::run_command;
using testing::run_deq;
using testing::Running;
using testing::Scratch;
using testing::write_text;

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
  ASSERT_TRUE(comes(parts + "/last.safetensors", first));
  const std::vector<pid_t> ranks = children_of(first.pid());
  if (ranks.size() == 2) ::kill(ranks[1], SIGINT);
  const int code = first.wait();
  EXPECT_TRUE(code == 130 || code == 0) << first.said();
  for (const char* count : {"4", "1"})
    ASSERT_EQ(run_deq("train " + parts + " --resume --processes " + count).exit_code, 0);
  expect_same_run(whole, parts);
}

/// Debian's needs the streams named.
std::string torchrun(const Scratch& scratch, const std::string& arguments) {
  return fmt::format(
      "/usr/bin/python3 -m torch.distributed.run --no_python --redirects 1 --tee 1 --log_dir {} "
      "--master_port {} --monitor_interval 0.1 --nproc_per_node 2 {}",
      (scratch / "logs").string(), free_port(), arguments);
}

/// Debian 13's starts nothing: it asks for a store that its LibTorch was built without.
bool starts_anything(const Scratch& scratch) {
  return run_command(torchrun(scratch, "/bin/true 2>/dev/null")).exit_code == 0;
}

TEST(Torchrun, StartsTheCommandAsItIs) {
  DEQ_NEEDS_SEVERAL;
  const Scratch scratch;
  if (!starts_anything(scratch)) GTEST_SKIP() << "no torchrun here that starts /bin/true";
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
  const Scratch scratch;
  if (!starts_anything(scratch)) GTEST_SKIP() << "no torchrun here that starts /bin/true";
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
