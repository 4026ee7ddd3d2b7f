#include "deq/distributed/processes.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <thread>

#include "deq/base/error.h"
#include "deq/distributed/store_server.h"

namespace deq {
namespace {

using Clock = std::chrono::steady_clock;

/// NAME=value of this process's environment, with these in place of its own.
std::vector<std::string> environment_with(const std::vector<std::string>& set) {
  std::vector<std::string> all = set;
  for (char** one = environ; *one; ++one) {
    const std::string entry = *one;
    const std::string name = entry.substr(0, entry.find('=') + 1);
    bool replaced = false;
    for (const std::string& other : set) replaced = replaced || other.rfind(name, 0) == 0;
    if (!replaced) all.push_back(entry);
  }
  return all;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (const std::string& text : texts) all.push_back(const_cast<char*>(text.c_str()));
  all.push_back(nullptr);
  return all;
}

pid_t start(const std::vector<std::string>& arguments, const std::vector<std::string>& set) {
  const std::vector<std::string> environment = environment_with(set);
  const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  const pid_t parent = ::getpid(), child = ::fork();
  DEQ_CHECK(child >= 0, "cannot start a process: {}", std::strerror(errno));
  if (child > 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::execve("/proc/self/exe", argv.data(), envp.data());
  ::_exit(127);
}

/// Processes that were started, by rank.
class Started {
 public:
  explicit Started(const std::function<void(const std::string&)>& say) : say_(say) {}
  ~Started() { kill_all(SIGKILL), wait_all(); }

  void add(pid_t child) { open_.push_back(child), ++left_; }
  bool any() const { return left_ > 0; }
  bool failed() const { return failed_; }
  int code() const { return code_; }

  void kill_all(int signal) {
    for (const pid_t child : open_) {
      if (child > 0) ::kill(child, signal);
    }
  }

  /// Takes note of those that have ended.
  void look() {
    for (size_t rank = 0; rank < open_.size(); ++rank) {
      int status = 0;
      if (open_[rank] <= 0 || ::waitpid(open_[rank], &status, WNOHANG) != open_[rank]) continue;
      open_[rank] = 0;
      --left_;
      ended(rank, status);
    }
  }

 private:
  void ended(size_t rank, int status) {
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    const bool first = !failed_;
    if (WIFSIGNALED(status) && first)
      say_(fmt::format("rank {} was killed: {}", rank, strsignal(WTERMSIG(status))));
    if (code != 0 && first) code_ = code;
    // An interrupted run ends with a code of its own on all ranks; nobody needs to be ended for it.
    if (code != 0) failed_ = true;
  }

  void wait_all() {
    for (const pid_t child : open_) {
      if (child > 0) ::waitpid(child, nullptr, 0);
    }
  }

  const std::function<void(const std::string&)>& say_;
  std::vector<pid_t> open_;
  int left_ = 0;
  bool failed_ = false;
  int code_ = 0;
};

}  // namespace

int run_processes(int count, const std::vector<std::string>& arguments,
                  const std::atomic<bool>& interrupt, double grace,
                  const std::function<void(const std::string&)>& say) {
  const StoreServer server;
  Started started(say);
  for (int rank = 0; rank < count; ++rank) {
    started.add(start(
        arguments, {fmt::format("RANK={}", rank), fmt::format("WORLD_SIZE={}", count),
                    fmt::format("LOCAL_RANK={}", rank), fmt::format("LOCAL_WORLD_SIZE={}", count),
                    "MASTER_ADDR=127.0.0.1", fmt::format("MASTER_PORT={}", server.port()),
                    "TORCHELASTIC_USE_AGENT_STORE=True", "TORCHELASTIC_RESTART_COUNT=0"}));
  }
  bool asked = false;
  Clock::time_point failure;
  while (started.any()) {
    const bool before = started.failed();
    started.look();
    if (started.failed() && !before) failure = Clock::now();
    if (started.failed() && Clock::now() - failure > std::chrono::duration<double>(grace))
      started.kill_all(SIGKILL);
    if (interrupt && !asked) {
      started.kill_all(SIGTERM);
      asked = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return started.code();
}

}  // namespace deq
