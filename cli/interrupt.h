// Ctrl-C and a polite kill (SIGTERM) set a flag that long-running commands look at between steps.
#pragma once

#include <atomic>

namespace deq::cli {

/// Installs the handlers on the first call. A second signal ends the process as usual.
const std::atomic<bool>& interrupt_flag();

/// The exit code of a command that was interrupted.
inline constexpr int kInterrupted = 130;

}  // namespace deq::cli
