// Processes that tests start: each ends by itself, whatever it does.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace deq::testing {

/// Seconds after which what a test started is ended.
#ifdef __SANITIZE_ADDRESS__
inline constexpr int kTimeLimit = 1500;
#else
inline constexpr int kTimeLimit = 300;
#endif

/// Called in a child: it ends with the test, and after kTimeLimit seconds. Both outlive exec.
inline void end_in_time() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::alarm(kTimeLimit);
}

/// Runs `action` in a child process; its return value is the exit status.
template <class Action>
pid_t in_child(Action&& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    end_in_time();
    ::_exit(action());
  }
  return child;
}

inline int status_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace deq::testing
