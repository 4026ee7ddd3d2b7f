// How many threads work shall have, on a machine that others use too. OpenMP's threads meet at a
// barrier after every piece of work and spin there: as soon as one of them has to wait for a core,
// all do, and two threads beside another busy process are many times slower than one.
#pragma once

namespace deq {

/// The physical cores that this process may run on, limited by a container's share of CPU time.
int usable_cores();

/// What other processes leave of them: measured since the last call that was 0.2 s ago or longer,
/// at first guessed from how many threads of the machine want to run. All where /proc cannot be
/// read.
double free_cores();

/// For its scope, LibTorch's threads (at::get_num_threads() of the calling thread) are no more than
/// the cores that are free, at least one. What was set before, by OMP_NUM_THREADS or
/// at::set_num_threads(), is the upper bound, and in force again behind the scope. Results do not
/// depend on it: see docs/design.md. Scopes may stand within one another. Costs a look at a clock.
class FreeThreads {
 public:
  FreeThreads();
  ~FreeThreads();
  FreeThreads(const FreeThreads&) = delete;
  FreeThreads& operator=(const FreeThreads&) = delete;
};

/// Looks again, within a scope that lasts; nothing outside of one.
void look_for_free_threads();

/// Whether scopes do anything, in all threads from now on; returns what was before. Without them
/// the number of threads is what was set, as a comparison of numbers of threads needs.
bool use_free_threads_only(bool on);

}  // namespace deq
