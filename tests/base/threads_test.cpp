// How many threads work gets beside others on one machine.
#include "deq/base/threads.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/base/busy_loops.h"

namespace deq {
namespace {

TEST(FreeThreads, AreRestoredBehindTheirScope) {
  const int before = at::get_num_threads();
  for (const int bound : {1, 2, before}) {
    at::set_num_threads(bound);
    {
      const FreeThreads scope;
      EXPECT_GE(at::get_num_threads(), 1);
      EXPECT_LE(at::get_num_threads(), bound);
      {
        const FreeThreads within;
        look_for_free_threads();
        EXPECT_LE(at::get_num_threads(), bound);
      }
      EXPECT_LE(at::get_num_threads(), bound);
    }
    EXPECT_EQ(at::get_num_threads(), bound);
  }
  at::set_num_threads(before);
  look_for_free_threads();  // outside a scope: nothing
  EXPECT_EQ(at::get_num_threads(), before);
}

TEST(FreeThreads, LeaveANumberThatWasSetMeanwhile) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  {
    const FreeThreads scope;
    at::set_num_threads(3);  // the upper bound from now on
    look_for_free_threads();
    EXPECT_LE(at::get_num_threads(), 3);
  }
  EXPECT_EQ(at::get_num_threads(), 3);
  at::set_num_threads(before);
}

TEST(FreeThreads, AreOneBesideABusyLoopForEachCore) {
  const int before = at::get_num_threads();
  at::set_num_threads(usable_cores());
  const testing::BusyLoops busy(usable_cores());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  int now = 0;
  do {  // the loops have to start, and a window of measurement to pass
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    const FreeThreads scope;
    now = at::get_num_threads();
  } while (now > 1 && std::chrono::steady_clock::now() < end);
  EXPECT_EQ(now, 1);
  EXPECT_LT(free_cores(), 1.5);
  at::set_num_threads(before);
}

}  // namespace
}  // namespace deq
