// Work that comes in pieces of unequal size, spread over LibTorch's threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace deq::ops {

/// Runs f(i, scratch) for every i < tasks, each in whichever thread is free; `scratch` are
/// `numbers` numbers of the thread's own.
template <class T, class F>
void run_tasks(int64_t tasks, int64_t numbers, const F& f) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(tasks, at::get_num_threads());
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    const auto scratch = std::make_unique_for_overwrite<T[]>(size_t(numbers));
    for (int64_t i = next++; i < tasks; i = next++) f(i, scratch.get());
  });
}

}  // namespace deq::ops
