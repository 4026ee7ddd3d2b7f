// How processes find each other: by the variables that torchrun sets, which any launcher can.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "deq/distributed/process_group.h"

namespace deq {

/// Where processes meet, and which of them this one is.
struct Rendezvous {
  std::string address = "127.0.0.1";  ///< of the machine where they meet
  int64_t port = 29500;
  int64_t rank = 0;
  int64_t size = 1;
  int64_t local_rank = 0;  ///< among those of this machine
  int64_t local_size = 1;
  bool served = false;   ///< the launcher serves the meeting place; otherwise rank 0 does
  int64_t restarts = 0;  ///< how often the launcher has started all of them again
};

/// RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT,
/// TORCHELASTIC_USE_AGENT_STORE and TORCHELASTIC_RESTART_COUNT; nothing without WORLD_SIZE. Throws
/// deq::Error for one that is missing or makes no sense.
std::optional<Rendezvous> rendezvous_from_environment();

/// The group of all that meet there. `timeout`, in seconds, is how long one waits for another: to
/// come, and for each message. `lost` hears, on another thread, that a process is gone, where this
/// one does not come to notice within a second. Throws deq::Error where they do not meet, and where
/// this build has no c10d.
std::shared_ptr<ProcessGroup> join(const Rendezvous& meeting, double timeout,
                                   const std::function<void(const std::string&)>& lost);

/// Everybody is done: from here on nobody is missed. Nothing for a process alone.
void leave(ProcessGroup& group);

/// What another thread waits for in this group is waited for no longer: it throws, as all does that
/// is asked of the group from here on. Nothing for a process alone.
void abandon(ProcessGroup& group);

/// Whether this build can join a group of several; and why not.
bool can_join();
const char* why_alone();

}  // namespace deq
