#include "cli/threads.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "deq/base/threads.h"

namespace deq::cli {

void use_all_cores() {
  if (std::getenv("OMP_NUM_THREADS") || std::getenv("MKL_NUM_THREADS")) return;
  at::set_num_threads(usable_cores());
}

void use_threads(int64_t count) {
  if (count <= 0) return;
  const int cores = usable_cores();
  if (count > cores)
    fmt::print(stderr,
               "warning: threads = {}; this process may run on {} core{}: no more are used\n",
               count, cores, cores == 1 ? "" : "s");
  at::set_num_threads(int(std::min<int64_t>(count, cores)));
}

}  // namespace deq::cli
