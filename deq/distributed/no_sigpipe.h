// A peer that has gone is an error of whoever writes to it, not the end of the process.
#pragma once

#include <signal.h>

namespace deq {

/// For its scope SIGPIPE reaches neither this thread nor those that it starts, which keep it so:
/// their writes to closed connections fail with EPIPE. (Gloo, as Debian 12 has it, writes without
/// MSG_NOSIGNAL.) Behind it the thread's mask is what it was.
class NoSigpipe {
 public:
  NoSigpipe();
  ~NoSigpipe();
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t before_;
  bool pending_ = false;  // before it
};

}  // namespace deq
