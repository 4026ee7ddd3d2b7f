// The oracle's equilibria with a guarantee, and networks as one equilibrium: kinds mondeq,
// mondeq-conv, implicit, l1-projection, stacked-equilibria and feed-forward-as-equilibrium.
#pragma once

#include <filesystem>
#include <string>

namespace deq::testing {

/// Whether `kind` is one of these.
bool is_equilibrium(const std::string& kind);

/// Checks the case in `path`, in double, by its config: values to 1e-10 and gradients to 1e-8 of
/// each tensor's largest entry. Prints a line.
bool check_equilibrium(const std::filesystem::path& path);

}  // namespace deq::testing
