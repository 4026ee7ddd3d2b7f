// The oracle's cases of MAXSAT's relaxation: kinds maxsat, maxsat-clauses and maxsat-degenerate.
#pragma once

#include <filesystem>
#include <string>

namespace deq::testing {

/// Whether `kind` is one of these.
bool is_maxsat(const std::string& kind);

/// Checks the case in `path`, and prints a line with its worst errors.
bool check_maxsat(const std::filesystem::path& path);

}  // namespace deq::testing
