// What the commands share in reading their arguments.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace deq::cli {

/// Parses a command's arguments (those after its name). Gives the exit code where the command is
/// done with that: 0 after --help, 2 after a usage error, which it has then printed.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> arguments(argv, argv + argc);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(arguments));
    return std::nullopt;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "error: {}; see `{} --help`\n", error.what(), app.get_name());
    return 2;
  }
}

}  // namespace deq::cli
