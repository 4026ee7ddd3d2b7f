#pragma once

namespace deq::cli {

/// The physical cores that this process may run on, limited by a container's share of CPU time.
int usable_cores();

/// Lets LibTorch use them all. Its own default is half of the logical processors, which is half of
/// the cores wherever these have one thread each. OMP_NUM_THREADS, where set, keeps the last word.
void use_all_cores();

}  // namespace deq::cli
