// The oracle's equilibria with a guarantee, and networks as one equilibrium.
#pragma once

#include <filesystem>

namespace deq::testing {

struct OracleCounts {
  int passed = 0, failed = 0;
};

/// Checks every case of these kinds in the folder, in double, by its config: values to 1e-10 and
/// gradients to 1e-8 of each tensor's largest entry. Prints a line for each.
OracleCounts check_equilibria(const std::filesystem::path& folder);

}  // namespace deq::testing
