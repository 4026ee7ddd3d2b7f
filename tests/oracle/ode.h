// The oracle's ordinary differential equations: kinds ode-*.
#pragma once

#include <filesystem>
#include <string>

namespace deq::testing {

/// Whether `kind` is one of these.
bool is_ode(const std::string& kind);

/// Checks the case in `path`, in double, by its config: values to 100 times and gradients to 1,000
/// times the tolerance, which falls to 1e-10; every gradient mode and method; and what the notes of
/// the traps say. Prints a line for each.
bool check_ode(const std::filesystem::path& path);

}  // namespace deq::testing
