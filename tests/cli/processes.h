// Runs of `deq train` on several processes, and what two of them have in common.
#pragma once

#include <signal.h>

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "deq/files/safetensors.h"
#include "tests/cli/trained_run.h"

namespace deq::testing {

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

/// Waits until the file is there; false where it does not come.
inline bool comes(const std::filesystem::path& file) {
  for (int i = 0; i < 100 * kTimeLimit; ++i) {
    if (std::filesystem::exists(file)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
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

}  // namespace deq::testing
