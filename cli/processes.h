// Training on several processes, as the command line and the environment ask for it.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "deq/distributed/rendezvous.h"
#include "deq/train/options.h"

namespace deq::cli {

/// What the command line says of processes; nothing of it stays with a run.
struct ProcessArguments {
  int64_t count = 1;
  double timeout = 300;  ///< seconds
};

void add_process_options(CLI::App& app, ProcessArguments& arguments);

/// Where a launcher has started this process; none where nobody has. Throws deq::Error where that
/// is not what the command line says.
std::optional<Rendezvous> meeting_of(const ProcessArguments& arguments);

/// The others that were started; none without a meeting. Ends this process with one line where one
/// of them is gone and this one does not come to notice.
std::shared_ptr<ProcessGroup> join_group(const std::optional<Rendezvous>& meeting,
                                         const ProcessArguments& arguments);

/// Starts `deq train` with these arguments in as many processes, and gives their exit code.
int start_processes(const ProcessArguments& arguments, int argc, char** argv);

/// Throws deq::Error unless so many processes can share out the shards.
void check_shards(const TrainOptions& options, int64_t processes);

/// Throws deq::Error, naming the first that differs, unless all have the same options and versions.
/// Where data stand, on which device and with how many threads is each one's own.
void check_same_run(ProcessGroup& group, const TrainOptions& options);

/// Whether rank 0 finds a run in the folder.
bool holds_run(ProcessGroup& group, const std::filesystem::path& folder);

/// The threads that `threads` says; or else, unless the environment does, this process's share of
/// its machine's cores.
void use_share_of_threads(int64_t threads, const std::optional<Rendezvous>& meeting);

}  // namespace deq::cli
