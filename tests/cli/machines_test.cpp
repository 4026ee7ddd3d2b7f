// Training on two machines, as far as the kernel is concerned, and with a cable between them.
#include <gtest/gtest.h>

#include "tests/cli/processes.h"

namespace deq {
namespace {

using testing::Clock;
using testing::comes;
using testing::EndlessRun;
using testing::expect_same_run;
using testing::on_text;
using testing::run_command;
using testing::run_deq;
using testing::Running;
using testing::seconds_since;
using testing::write_text;

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

class TwoMachines : public EndlessRun {};

TEST_F(TwoMachines, GiveTheBitsOfOneProcessThoughTheirCableIsPulledForAWhile) {
  DEQ_NEEDS_SEVERAL;
  const Machines machines;
  if (!machines.made()) GTEST_SKIP() << "no network namespaces here";
  options_ = on_text(write_text(scratch_)) + " --shards 2 --timeout 60";
  options_.replace(options_.find("--steps 40"), 10, "--steps 300");
  Running first(scratch_, "train " + folder() + options_, machines.on(0));
  Running second(scratch_, "train " + (scratch_ / "none").string() + options_, machines.on(1));
  ASSERT_TRUE(comes(folder() + "/last.safetensors", first)) << first.said() << second.said();
  machines.set_cable(false);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  machines.set_cable(true);
  EXPECT_EQ(first.wait(), 0) << first.said();
  EXPECT_EQ(second.wait(), 0) << second.said();
  ASSERT_EQ(run_deq("train " + (scratch_ / "one").string() + options_).exit_code, 0);
  expect_same_run(scratch_ / "one", folder());
}

TEST_F(TwoMachines, ACableThatIsCutEndsBothMachinesInTime) {
  DEQ_NEEDS_SEVERAL;
  const Machines machines;
  if (!machines.made()) GTEST_SKIP() << "no network namespaces here";
  options_ = on_text(write_text(scratch_)) + " --shards 2 --timeout 4";
  options_.replace(options_.find("--steps 40"), 10, "--steps 1000000");
  Running first(scratch_, "train " + folder() + options_, machines.on(0));
  Running second(scratch_, "train " + (scratch_ / "none").string() + options_, machines.on(1));
  ASSERT_TRUE(comes(folder() + "/last.safetensors", first)) << first.said() << second.said();
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
  EXPECT_EQ(run_deq("train " + folder() + " --resume --minutes 0.005 2>&1").exit_code, 0);
}

}  // namespace
}  // namespace deq
