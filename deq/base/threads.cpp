#include "deq/base/threads.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace deq {
namespace {

using Clock = std::chrono::steady_clock;

/// The logical processors that this process may run on; none where the system does not say.
std::vector<int> allowed_processors() {
  std::vector<int> found;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return found;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) found.push_back(cpu);
  }
  return found;
}

/// CPU time per time of the container ("max 100000" or "150000 100000"); 0 where there is no limit.
double cpu_quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::strtod(quota.c_str(), nullptr) / period;
}

/// CPU seconds that this process has used.
double own_seconds() {
  rusage used;
  if (getrusage(RUSAGE_SELF, &used) != 0) return 0;
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

/// CPU seconds that the allowed processors were busy, for whomever.
std::optional<double> busy_seconds(const std::vector<int>& allowed) {
  std::ifstream file("/proc/stat");
  double ticks = 0;
  size_t seen = 0;
  for (std::string line; std::getline(file, line) && line.rfind("cpu", 0) == 0;) {
    std::istringstream fields(line.substr(3));
    int cpu = 0;
    double user, nice, system, idle, io, irq, softirq, steal;
    if (line[3] == ' ') continue;  // the sum of all
    if (!(fields >> cpu >> user >> nice >> system >> idle >> io >> irq >> softirq >> steal)) break;
    if (!std::binary_search(allowed.begin(), allowed.end(), cpu)) continue;
    ticks += user + nice + system + irq + softirq + steal;
    ++seen;
  }
  if (seen == 0 || seen != allowed.size()) return std::nullopt;
  return ticks / double(sysconf(_SC_CLK_TCK));
}

/// Threads of the whole machine that run or want to, the calling one not counted.
std::optional<double> others_that_want_to_run() {
  std::ifstream file("/proc/loadavg");
  double one, five, fifteen, running;
  if (!(file >> one >> five >> fifteen >> running)) return std::nullopt;
  return std::max(0.0, running - 1);
}

/// The load that other processes are, and what follows from it.
class Load {
 public:
  static Load& of_this_process() {
    static Load load;
    return load;
  }

  double free() {
    look();
    return free_;
  }

  /// Threads for which there is a core: fewer as soon as half of one is gone, more again where but
  /// a quarter is.
  int threads() {
    look();
    return threads_;
  }

 private:
  using Duration = Clock::duration;
  static constexpr Duration kWindow = std::chrono::milliseconds(200);  // ticks are of 10 ms
  static constexpr Duration kStale = std::chrono::seconds(2);

  Load() : allowed_(allowed_processors()), cores_(usable_cores()), free_(cores_) {
    threads_ = cores_;
    if (!allowed_.empty()) begin(Clock::now());
  }

  void look() {
    if (allowed_.empty() || Clock::now().time_since_epoch().count() < next_) return;
    const std::unique_lock<std::mutex> one(guard_, std::try_to_lock);
    if (!one) return;  // another thread is at it
    const auto now = Clock::now();
    if (now - since_ > kStale) return begin(now);
    const std::optional<double> busy = busy_seconds(allowed_);
    const double own = own_seconds(), wall = std::chrono::duration<double>(now - since_).count();
    if (busy && busy_) set(std::max(0.0, (*busy - *busy_ - (own - own_)) / wall));
    start(now, busy, own);
  }

  /// Where nothing recent is known.
  void begin(Clock::time_point now) {
    if (const auto others = others_that_want_to_run()) set(*others);
    start(now, busy_seconds(allowed_), own_seconds());
  }

  void start(Clock::time_point now, std::optional<double> busy, double own) {
    since_ = now;
    busy_ = busy;
    own_ = own;
    next_ = (now + kWindow).time_since_epoch().count();
  }

  void set(double others) {
    const double left = std::max(0.0, double(allowed_.size()) - others);
    free_ = std::min(double(cores_), left);
    const int fewer = int(std::floor(free_ + 0.5)), more = int(std::floor(free_ + 0.25));
    threads_ = std::clamp(int(threads_), std::max(1, more), std::max(1, fewer));
  }

  const std::vector<int> allowed_;
  const int cores_;
  std::mutex guard_;
  Clock::time_point since_;
  std::optional<double> busy_;
  double own_ = 0;
  std::atomic<double> free_;
  std::atomic<int> threads_;
  std::atomic<Clock::rep> next_ = 0;
};

/// What the scopes of one thread share. LibTorch's own setter would make its other pools anew.
struct Scopes {
  int depth = 0, bound = 0, in_force = 0;
};
thread_local Scopes scopes;

std::atomic<bool> free_only{true};

void set_threads(int count) {
#ifdef _OPENMP
  omp_set_num_threads(count);
#endif
  scopes.in_force = count;
}

}  // namespace

int usable_cores() {
  std::set<std::string> cores;  // threads of one core have the same list of siblings
  for (const int cpu : allowed_processors()) {
    std::ifstream file(
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = std::to_string(cpu);
    cores.insert(siblings);
  }
  const double quota = cpu_quota();
  const int count = static_cast<int>(cores.size());
  return std::max(1, quota > 0 ? std::min(count, static_cast<int>(std::ceil(quota))) : count);
}

bool use_free_threads_only(bool on) { return free_only.exchange(on); }

double free_cores() { return Load::of_this_process().free(); }

FreeThreads::FreeThreads() {
  if (scopes.depth++ == 0) scopes.bound = scopes.in_force = at::get_num_threads();
  look_for_free_threads();
}

FreeThreads::~FreeThreads() {
  // Not where somebody has set another number meanwhile.
  if (--scopes.depth == 0 && at::get_num_threads() == scopes.in_force) set_threads(scopes.bound);
}

void look_for_free_threads() {
#ifdef _OPENMP
  if (scopes.depth == 0 || scopes.bound <= 1 || !free_only || omp_in_parallel()) return;
  const int now = at::get_num_threads();
  if (now != scopes.in_force) scopes.bound = now;  // somebody has set another
  const int count = std::min(scopes.bound, Load::of_this_process().threads());
  if (count != now) set_threads(count);
#endif
}

}  // namespace deq
