// What the tests of locks and full disks share: something done in a process of its own.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

namespace deq::testing {

/// Runs `action` in a child process; its return value is the exit status.
template <class Action>
pid_t in_child(Action&& action) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(action());
  return child;
}

inline int status_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace deq::testing
