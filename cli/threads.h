// The number of threads a command may use. While it works, fewer are in force as soon as others use
// the machine: deq/base/threads.h.
#pragma once

#include <cstdint>

namespace deq::cli {

/// Lets LibTorch use all cores. Its own default is half of the logical processors, which is half of
/// the cores wherever these have one thread each. OMP_NUM_THREADS, where set, keeps the last word.
void use_all_cores();

/// At most `count` from now on; 0: as it is. Warns where there are fewer cores: threads that share
/// one wait for each other.
void use_threads(int64_t count);

}  // namespace deq::cli
