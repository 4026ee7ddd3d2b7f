// Where processes meet: torchrun's variables, and what is wrong with them.
#include "deq/distributed/rendezvous.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "deq/base/error.h"
#include "deq/distributed/address.h"
#include "deq/distributed/peer_watch.h"
#include "tests/distributed/threads.h"

namespace deq {
namespace {

using Variables = std::map<std::string, std::string>;

const Variables kOfTorchrun = {{"RANK", "3"},
                               {"WORLD_SIZE", "4"},
                               {"LOCAL_RANK", "1"},
                               {"LOCAL_WORLD_SIZE", "2"},
                               {"MASTER_ADDR", "10.1.2.3"},
                               {"MASTER_PORT", "29511"},
                               {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                               {"TORCHELASTIC_RESTART_COUNT", "2"}};

/// Exactly these of them are set.
std::optional<Rendezvous> found_with(const Variables& set) {
  for (const auto& [name, value] : kOfTorchrun) ::unsetenv(name.c_str());
  for (const auto& [name, value] : set) ::setenv(name.c_str(), value.c_str(), 1);
  const auto clear = [] {
    for (const auto& [name, value] : kOfTorchrun) ::unsetenv(name.c_str());
  };
  try {
    const auto found = rendezvous_from_environment();
    clear();
    return found;
  } catch (...) {
    clear();
    throw;
  }
}

std::string error_with(const std::string& name, const std::string& value) {
  Variables set = kOfTorchrun;
  value.empty() ? void(set.erase(name)) : void(set[name] = value);
  try {
    found_with(set);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Rendezvous, IsReadFromTheVariablesOfTorchrun) {
  EXPECT_FALSE(found_with({}));
  const auto found = found_with(kOfTorchrun);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->rank, 3);
  EXPECT_EQ(found->size, 4);
  EXPECT_EQ(found->local_rank, 1);
  EXPECT_EQ(found->local_size, 2);
  EXPECT_EQ(found->address, "10.1.2.3");
  EXPECT_EQ(found->port, 29511);
  EXPECT_TRUE(found->served);
  EXPECT_EQ(found->restarts, 2);
  const auto plain =
      found_with({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1"}});
  EXPECT_FALSE(plain->served);
  EXPECT_EQ(plain->restarts, 0);
  EXPECT_EQ(plain->local_size, 1);
  EXPECT_EQ(found_with({{"WORLD_SIZE", "1"}})->size, 1);  // of one nothing else is asked
}

TEST(Rendezvous, WhatMakesNoSenseIsNamed) {
  EXPECT_EQ(error_with("RANK", ""),
            "RANK is not set beside WORLD_SIZE; expected 0 to WORLD_SIZE - 1");
  EXPECT_EQ(error_with("RANK", "4"), "RANK = '4'; expected 0 to 3");
  EXPECT_EQ(error_with("WORLD_SIZE", "two"), "WORLD_SIZE = 'two'; expected 1 to 65536");
  EXPECT_EQ(error_with("MASTER_PORT", "70000"), "MASTER_PORT = '70000'; expected 1 to 65535");
  EXPECT_EQ(error_with("MASTER_ADDR", ""),
            "MASTER_ADDR is not set beside WORLD_SIZE; expected the machine where processes meet");
}

std::string error_of_joining(const Rendezvous& meeting, double timeout) {
  try {
    join(meeting, timeout, {});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Rendezvous, OneThatNeverComesIsNamed) {
  const StoreServer server;
  const std::string error =
      error_of_joining({.port = server.port(), .rank = 0, .size = 2, .served = true}, 1);
  EXPECT_EQ(error, fmt::format("rank 1 did not come to 127.0.0.1:{} within 1 s, which rank 0 "
                               "waited; expected 2 processes",
                               server.port()));
}

TEST(Rendezvous, APortInUseAndAHostThatNobodyKnowsAreNamed) {
  const StoreServer server;
  const std::string in_use = error_of_joining({.port = server.port(), .rank = 0, .size = 2}, 2);
  EXPECT_EQ(in_use.rfind(fmt::format("rank 0 cannot serve at 127.0.0.1:{}: ", server.port()), 0),
            0u)
      << in_use;
  EXPECT_EQ(in_use.find('\n'), in_use.npos);
  const std::string unknown =
      error_of_joining({.address = "no-such-host.invalid", .rank = 1, .size = 2}, 2);
  EXPECT_EQ(unknown.rfind("MASTER_ADDR = no-such-host.invalid: ", 0), 0u) << unknown;
}

TEST(Rendezvous, TheAddressIsThatOnTheWayToTheMeeting) {
  EXPECT_EQ(own_address("127.0.0.1"), "127.0.0.1");
  ::setenv("GLOO_SOCKET_IFNAME", "lo", 1);
  EXPECT_EQ(own_address("no-such-host.invalid"), "127.0.0.1");
  ::setenv("GLOO_SOCKET_IFNAME", "none0", 1);
  EXPECT_THROW(own_address("127.0.0.1"), Error);
  ::unsetenv("GLOO_SOCKET_IFNAME");
}

TEST(PeerWatch, HearsOfOneThatGoesWithoutFarewellAndOfNoOther) {
  for (const bool farewell : {true, false}) {
    const Listener first("127.0.0.1"), second("127.0.0.1");
    const std::vector<std::string> places{first.place(), second.place()};
    std::atomic<int> gone{-1};
    std::unique_ptr<PeerWatch> of_first;
    std::thread other([&] {
      PeerWatch watch(1, places, second, 10, [](int64_t) {});
      if (farewell) watch.leave();
    });
    of_first = std::make_unique<PeerWatch>(0, places, first, 10, [&](int64_t r) { gone = int(r); });
    other.join();
    for (int i = 0; i < 100 && gone < 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(farewell ? 3 : 20));
    EXPECT_EQ(gone, farewell ? -1 : 1);
  }
}

}  // namespace
}  // namespace deq
