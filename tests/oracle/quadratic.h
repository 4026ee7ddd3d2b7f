// The oracle's quadratic programs.
#pragma once

#include <filesystem>

namespace deq::testing {

struct QuadraticCounts {
  int passed = 0, failed = 0;
};

/// Checks every case of the kinds qp and qp-* in the folder, in double, by its config: values to
/// 1e-10 and gradients to 1e-8 of each tensor's largest entry (1e-6 where it is ill scaled), and
/// what its note says of a program that is degenerate or has no solution. Prints a line for each.
QuadraticCounts check_quadratic_programs(const std::filesystem::path& folder);

}  // namespace deq::testing
