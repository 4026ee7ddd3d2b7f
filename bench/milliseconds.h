#pragma once

#include <algorithm>
#include <ctime>
#include <functional>
#include <limits>

/// The least processor time of so many runs: what other work on a machine adds to least.
inline double milliseconds(int runs, const std::function<void()>& work) {
  double least = std::numeric_limits<double>::infinity();
  for (int run = 0; run < runs; ++run) {
    timespec begin{}, end{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    work();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    least = std::min(least, 1e3 * double(end.tv_sec - begin.tv_sec) +
                                1e-6 * double(end.tv_nsec - begin.tv_nsec));
  }
  return least;
}
