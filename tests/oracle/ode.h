// The oracle's ordinary differential equations.
#pragma once

#include <filesystem>

namespace deq::testing {

struct OdeCounts {
  int passed = 0, failed = 0;
};

/// Checks every case of the kinds ode-* in the folder, in double, by its config: values to 100
/// times and gradients to 1,000 times the tolerance, which falls to 1e-10; every gradient mode and
/// method; and what the notes of the traps say. Prints a line for each.
OdeCounts check_odes(const std::filesystem::path& folder);

}  // namespace deq::testing
