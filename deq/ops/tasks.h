// Work that comes in pieces of unequal size, spread over LibTorch's threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>

namespace deq::ops {

/// Memory of the calling thread's own, which it keeps for the next call.
template <class T>
T* thread_scratch(int64_t numbers) {
  thread_local std::unique_ptr<T[]> memory;
  thread_local int64_t size = 0;
  if (size < numbers) {
    memory = std::make_unique_for_overwrite<T[]>(size_t(numbers));
    size = numbers;
  }
  return memory.get();
}

/// Products and sums that a thread is woken for; fewer are done sooner than it is there.
constexpr int64_t kWorthAThread = int64_t(1) << 16;

/// Runs f(i, scratch) for every i < tasks, each in whichever thread is free; `scratch` are
/// `numbers` numbers of the thread's own. f must not run tasks itself. `work`, of all tasks
/// together, is in products: where it is little, the calling thread does it alone.
template <class T, class F>
void run_tasks(int64_t tasks, int64_t numbers, const F& f,
               int64_t work = std::numeric_limits<int64_t>::max()) {
  std::atomic<int64_t> next{0};
  const int64_t workers =
      std::min<int64_t>({tasks, at::get_num_threads(), std::max<int64_t>(1, work / kWorthAThread)});
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    T* const scratch = thread_scratch<T>(numbers);
    for (int64_t i = next++; i < tasks; i = next++) f(i, scratch);
  });
}

}  // namespace deq::ops
