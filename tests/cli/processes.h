// Runs of `deq train` on several processes, and what two of them have in common.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "deq/distributed/rendezvous.h"
#include "deq/files/safetensors.h"
#include "tests/cli/trained_run.h"

#define DEQ_NEEDS_SEVERAL \
  if (!can_join()) GTEST_SKIP() << why_alone()

namespace deq::testing {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The lines of a run's metrics without what depends on times or on the number of processes.
inline std::vector<std::string> lasting_metrics(const std::filesystem::path& run) {
  std::vector<std::string> found;
  std::istringstream lines(slurp(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    auto row = nlohmann::json::parse(line);
    for (const char* key : {"tokens_per_second", "seconds", "peak_mb", "processes", "waited"})
      row.erase(key);
    found.push_back(row.dump());
  }
  return found;
}

/// Weights, optimiser, histories, random state, position, metrics: to the bit.
inline void expect_same_run(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const char* file : {"last.safetensors", "best.safetensors"}) {
    ASSERT_TRUE(std::filesystem::exists(a / file)) << a;
    ASSERT_TRUE(std::filesystem::exists(b / file)) << b;
    TensorFile of_a = load_tensors(a / file), of_b = load_tensors(b / file);
    of_a.metadata.erase("seconds");
    of_b.metadata.erase("seconds");
    EXPECT_EQ(of_a.metadata, of_b.metadata) << b << " " << file;
    ASSERT_EQ(of_a.tensors.size(), of_b.tensors.size()) << b << " " << file;
    for (const auto& [name, tensor] : of_a.tensors)
      EXPECT_TRUE(at::equal(tensor, of_b.tensors.at(name))) << b << " " << file << " " << name;
  }
  EXPECT_EQ(lasting_metrics(a), lasting_metrics(b)) << b;
  EXPECT_EQ(slurp(a / "config.toml"), slurp(b / "config.toml"));
}

/// The processes that a process has started and that run, in the order of their numbers.
inline std::vector<pid_t> children_of(pid_t parent) {
  std::set<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    std::ifstream file(entry.path() / "stat");
    std::string stat((std::istreambuf_iterator<char>(file)), {});
    const size_t end = stat.rfind(')');
    if (end == stat.npos) continue;
    char state = 0;
    int of = 0;
    if (std::sscanf(stat.c_str() + end + 1, " %c %d", &state, &of) == 2 && of == parent &&
        state != 'Z')
      found.insert(std::stoi(name));
  }
  return {found.begin(), found.end()};
}

/// A `deq` in the background, whose stderr is kept.
class Running {
 public:
  /// `environment`: what stands before the command, as "env NAME=value".
  Running(const Scratch& scratch, const std::string& arguments, const std::string& environment = "")
      : lines_(scratch / ("stderr-" + std::to_string(counter()++))) {
    const std::string command =
        "exec " + environment + " " DEQ_BINARY " " + arguments + " >/dev/null 2>" + lines_.string();
    child_ = fork();
    if (child_ != 0) return;
    end_in_time();
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  ~Running() {
    if (child_ <= 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  pid_t pid() const { return child_; }
  bool ended() const {
    siginfo_t found{};
    ::waitid(P_PID, id_t(child_), &found, WEXITED | WNOHANG | WNOWAIT);
    return found.si_pid != 0;
  }
  int wait() {
    int status = 0;
    ::waitpid(child_, &status, 0);
    child_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string said() const { return slurp(lines_); }

 private:
  static int& counter() {
    static int count = 0;
    return count;
  }

  std::filesystem::path lines_;
  pid_t child_ = 0;
};

/// Waits until the file is there; false where it does not come, or the process has ended before.
inline bool comes(const std::filesystem::path& file, const Running& from) {
  for (int i = 0; i < 100 * kTimeLimit; ++i) {
    const bool ended = from.ended();
    if (std::filesystem::exists(file)) return true;
    if (ended) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

/// A run without end, in which step after step is taken.
class EndlessRun : public ::testing::Test {
 protected:
  void begin(int count, const std::string& more = "") {
    options_ = on_text(write_text(scratch_));
    options_.replace(options_.find("--steps 40"), 10, "--steps 1000000");
    run_.emplace(scratch_, fmt::format("train {} {} --shards 4 --processes {} --timeout 60 {}",
                                       folder(), options_, count, more));
    ASSERT_TRUE(comes(folder() + "/last.safetensors", *run_)) << run_->said();
    ranks_ = children_of(run_->pid());
    ASSERT_EQ(int(ranks_.size()), count);
  }

  std::string folder() const { return (scratch_ / "run").string(); }

  /// All have ended, and the run goes on from what is on disk.
  void expect_an_end() {
    for (const pid_t rank : ranks_) EXPECT_NE(::kill(rank, 0), 0);
    EXPECT_EQ(run_deq("train " + folder() + " --resume --minutes 0.005 2>&1").exit_code, 0);
  }

  /// So many lines, each of which begins as an error does.
  void expect_lines(int64_t lines) {
    const std::string said = run_->said();
    int64_t found = 0;
    std::istringstream in(said);
    for (std::string line; std::getline(in, line); ++found)
      EXPECT_EQ(line.rfind("error: ", 0), 0u) << said;
    EXPECT_EQ(found, lines) << said;
  }

  Scratch scratch_;
  std::string options_;
  std::optional<Running> run_;
  std::vector<pid_t> ranks_;
};

/// A port that is free now.
inline int free_port() {
  return 20000 + int((::getpid() * 7 + Clock::now().time_since_epoch().count() / 1000) % 12000);
}

inline std::string as_rank(int rank, int port, int size = 2) {
  return fmt::format("env MASTER_ADDR=127.0.0.1 MASTER_PORT={} WORLD_SIZE={} RANK={}", port, size,
                     rank);
}

}  // namespace deq::testing
