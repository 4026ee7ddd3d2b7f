// Kernels share their work among threads: at::parallel_for is a plain loop where the compiler's
// OpenMP is off, and nothing else would tell.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>

namespace {

TEST(Parallel, WorkIsSharedAmongThreads) {
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  std::mutex guard;
  std::set<int> seen;
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> held(guard);
    seen.insert(at::get_thread_num());
  });
  at::set_num_threads(threads);
  EXPECT_EQ(seen.size(), 2u);
}

}  // namespace
