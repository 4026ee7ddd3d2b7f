// Other processes that want all the CPU time they can get.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <vector>

namespace deq::testing {

/// So many busy loops, which end with the scope, and by themselves after a minute or with the test.
class BusyLoops {
 public:
  explicit BusyLoops(int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        alarm(60);
        const pid_t parent = getppid();
        volatile unsigned long rounds = 0;
        for (;;) {
          rounds = rounds + 1;
          if (rounds % 100000000 == 0 && getppid() != parent) _exit(0);
        }
      }
      if (child > 0) children_.push_back(child);
    }
  }
  ~BusyLoops() {
    for (const pid_t child : children_) kill(child, SIGKILL);
    for (const pid_t child : children_) waitpid(child, nullptr, 0);
  }
  BusyLoops(const BusyLoops&) = delete;
  BusyLoops& operator=(const BusyLoops&) = delete;

 private:
  std::vector<pid_t> children_;
};

}  // namespace deq::testing
