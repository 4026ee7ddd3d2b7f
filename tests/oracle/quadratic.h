// The oracle's quadratic programs: kinds qp and qp-*.
#pragma once

#include <filesystem>
#include <string>

namespace deq::testing {

/// Whether `kind` is one of these.
bool is_quadratic_program(const std::string& kind);

/// Checks the case in `path`, in double, by its config: values to 1e-10 and gradients to 1e-8 of
/// each tensor's largest entry (1e-6 where it is ill scaled), and what its note says of a program
/// that is degenerate or has no solution. Prints a line.
bool check_quadratic_program(const std::filesystem::path& path);

}  // namespace deq::testing
