// The oracle's contacts: kinds lcp-*.
#pragma once

#include <filesystem>
#include <string>

namespace deq::testing {

/// Whether `kind` is one of these.
bool is_contact(const std::string& kind);

/// Checks the case in `path`, by its config: in double values to 1e-10 and gradients to 1e-8 of
/// each tensor's largest entry, in float to 2e-5. Prints a line.
bool check_contact(const std::filesystem::path& path);

}  // namespace deq::testing
