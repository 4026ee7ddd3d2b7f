// Several processes of this program on this machine, which find each other.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace deq {

/// Starts this program `count` times with these arguments, each with the variables of rendezvous.h,
/// and waits for all of them. Once `interrupt` is set they are asked to stop (SIGTERM). Where one
/// fails or is killed the others have `grace` seconds to notice, and are then killed; none outlives
/// this process. Gives the exit code of the first that failed, or the code that all gave; what
/// there is to say of a process that was killed goes to `say`.
int run_processes(int count, const std::vector<std::string>& arguments,
                  const std::atomic<bool>& interrupt, double grace,
                  const std::function<void(const std::string&)>& say);

}  // namespace deq
