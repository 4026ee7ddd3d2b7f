// A machine that others use too: never much slower than one thread would be.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "deq/base/threads.h"
#include "tests/base/busy_loops.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/trained_run.h"

namespace deq {
namespace {

using testing::run_deq;

/// Of `deq ARGUMENTS`, which is ended after a minute.
testing::Output within_a_minute(const std::string& arguments) {
  return testing::run_command("timeout 60 " DEQ_BINARY " " + arguments);
}

/// "60 tokens, 812 per second, ...": 812; 0 where it did not end.
double rate(const testing::Output& output) {
  const size_t comma = output.text.find(" tokens, ");
  return comma == std::string::npos ? 0 : std::stod(output.text.substr(comma + 9));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

TEST(BusyMachine, ATokenIsNotMuchSlowerThanWithOneThread) {
  if (usable_cores() < 2) GTEST_SKIP() << "one core: one thread";
  const testing::Scratch scratch;
  const std::string run = (scratch / "run").string();
  const auto made =
      run_deq("train " + run + " --data " + testing::write_text(scratch) +
              " --task bytes --cell-width 128 --cell-heads 4 --cell-inner 512"
              " --batch 2 --length 12 --history 12 --steps 1 --eval-every 1"
              " --eval-lanes 1 --max-steps 4 --gradient-max-steps 4 --threads 1 2>&1");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  const testing::BusyLoops busy(usable_cores());
  const std::string text =
      "generate " + run + " --prompt abc --tokens 8000 --max-steps 4 --seed 1 2>&1 >/dev/null";
  std::vector<double> ratios;
  for (int round = 0; round < 5; ++round) {
    const double one = rate(within_a_minute(text + " --threads 1"));
    const double all = rate(within_a_minute(text));
    ASSERT_GT(one, 0);
    ratios.push_back(all / one);
  }
  // 0.8 is what is wanted; runs on a machine with others scatter, and those of less than a second
  // tell more of where the system puts a new process than of its threads.
  EXPECT_GT(median(ratios), 0.7) << ratios[0] << " " << ratios[1] << " " << ratios[2] << " "
                                 << ratios[3] << " " << ratios[4];
}

TEST(BusyMachine, InfoSaysHowManyThreadsAreInForce) {
  const testing::BusyLoops busy(usable_cores());
  const auto info = nlohmann::json::parse(within_a_minute("info --json").text);
  EXPECT_EQ(info.at("cores"), usable_cores());
  EXPECT_GE(info.at("threads_now").get<int>(), 1);
  EXPECT_LE(info.at("threads_now").get<int>(), info.at("threads").get<int>());
  EXPECT_LT(info.at("free_cores").get<double>(), usable_cores());
}

TEST(BusyMachine, MoreThreadsThanCoresAreWarnedAbout) {
  const std::string many = std::to_string(usable_cores() + 1);
  const auto output = run_deq("eval no-such-run --threads " + many + " 2>&1");
  EXPECT_NE(output.text.find("warning: threads = " + many), std::string::npos) << output.text;
}

}  // namespace
}  // namespace deq
