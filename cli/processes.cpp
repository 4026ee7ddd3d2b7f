#include "cli/processes.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cli/interrupt.h"
#include "cli/threads.h"
#include "deq/base/threads.h"
#include "deq/distributed/processes.h"

namespace deq::cli {
namespace {

/// How long the others have, where one fails, to say so and end.
constexpr double kGrace = 1.5;

void print_error(const std::string& message) {
  std::fputs(("error: " + message + "\n").c_str(), stderr);
}

/// Files are written whole or not at all: nothing is lost with what this process was doing.
[[noreturn]] void end_for_loss(const std::string& message) {
  print_error(message);
  std::fflush(stderr);
  ::_exit(1);
}

}  // namespace

void add_process_options(CLI::App& app, ProcessArguments& arguments) {
  app.add_option("--processes", arguments.count,
                 "train on so many processes of this machine, which share out --shards (as many "
                 "unless said); torchrun and its like say so by their variables [1]")
      ->check(CLI::Range(int64_t(1), int64_t(4096)))
      ->type_name("INT");
  app.add_option("--timeout", arguments.timeout,
                 "seconds that a process waits for the others before all give up [300]")
      ->check(CLI::Range(0.1, 1e6))
      ->type_name("NUMBER");
}

std::optional<Rendezvous> meeting_of(const ProcessArguments& arguments) {
  const auto meeting = rendezvous_from_environment();
  DEQ_CHECK(!meeting || arguments.count == 1 || arguments.count == meeting->size,
            "--processes {} with WORLD_SIZE = {}: a launcher has started these; expected one of "
            "them alone",
            arguments.count, meeting->size);
  return meeting;
}

std::shared_ptr<ProcessGroup> join_group(const std::optional<Rendezvous>& meeting,
                                         const ProcessArguments& arguments) {
  if (!meeting || meeting->size == 1) return alone();
  return join(*meeting, arguments.timeout, end_for_loss);
}

int start_processes(const ProcessArguments& arguments, int argc, char** argv) {
  DEQ_CHECK(can_join(), "--processes {}: {}; expected 1", arguments.count, why_alone());
  std::vector<std::string> words{"deq", "train"};
  words.insert(words.end(), argv, argv + argc);
  return run_processes(int(arguments.count), words, interrupt_flag(), kGrace, print_error);
}

void check_shards(const TrainOptions& options, int64_t processes) {
  const int64_t shards = options.loop.batch.shards;
  DEQ_CHECK(shards % processes == 0,
            "shards = {} with {} processes; expected a multiple of {}: each computes as many",
            shards, processes, processes);
  DEQ_CHECK(options.loop.batch.batch % shards == 0,
            "batch = {} with shards = {}; expected a multiple: shards of as many rows each",
            options.loop.batch.batch, shards);
}

void check_same_run(ProcessGroup& group, const TrainOptions& options) {
  std::map<std::string, std::string> values{{"deq", DEQ_VERSION}, {"LibTorch", TORCH_VERSION}};
  for (const OptionInfo& info : options_in_force(options)) {
    if (info.key != "data" && info.key != "device" && info.key != "threads")
      values[dashed(info.key)] = info.value;
  }
  check_alike(group, values);
}

bool holds_run(ProcessGroup& group, const std::filesystem::path& folder) {
  at::Tensor held =
      at::full({1}, int64_t(std::filesystem::exists(folder / "config.toml")), at::kLong);
  group.broadcast(held);
  return held.item<int64_t>() != 0;
}

void use_share_of_threads(int64_t threads, const std::optional<Rendezvous>& meeting) {
  if (threads > 0) return use_threads(threads);
  if (!meeting || std::getenv("OMP_NUM_THREADS") || std::getenv("MKL_NUM_THREADS")) return;
  at::set_num_threads(std::max(1, usable_cores() / int(meeting->local_size)));
}

}  // namespace deq::cli
