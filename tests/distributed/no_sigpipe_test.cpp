#include "deq/distributed/no_sigpipe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <thread>

namespace deq {
namespace {

/// What a write to a pipe without a reader leaves in errno.
int write_to_nobody() {
  int ends[2];
  if (::pipe(ends) != 0) return -1;
  ::close(ends[0]);
  const int error = ::write(ends[1], "", 1) < 0 ? errno : 0;
  ::close(ends[1]);
  return error;
}

TEST(NoSigpipe, AClosedConnectionIsAnErrorInThisThreadAndInThoseItStarts) {
  int of_another = 0;
  std::optional<NoSigpipe> mask(std::in_place);
  EXPECT_EQ(write_to_nobody(), EPIPE);
  std::thread started([&] { of_another = write_to_nobody(); });
  started.join();
  EXPECT_EQ(of_another, EPIPE);
  mask.reset();  // what it held back does not come now
}

TEST(NoSigpipe, LeavesTheMaskAsItWas) {
  const auto blocked = [] {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return sigismember(&now, SIGPIPE) == 1;
  };
  ASSERT_FALSE(blocked());
  {
    const NoSigpipe outer;
    { const NoSigpipe inner; }
    EXPECT_TRUE(blocked());
  }
  EXPECT_FALSE(blocked());
  EXPECT_DEATH(write_to_nobody(), "");
}

}  // namespace
}  // namespace deq
