// What the commands share in reading their arguments.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace deq::cli {

/// A switch that is followed by something else than true or false stands alone: `--greedy RUN`.
inline void complete_switches(const CLI::App& app, std::vector<std::string>& arguments) {
  for (size_t i = 0; i + 1 < arguments.size(); ++i) {
    const CLI::Option* option =
        arguments[i].rfind("--", 0) == 0 ? app.get_option_no_throw(arguments[i]) : nullptr;
    const bool is_switch =
        option && option->get_expected_min() == 0 && option->get_expected_max() == 1;
    const std::string& next = arguments[i + 1];
    if (is_switch && next != "true" && next != "false") arguments[i] += "=true";
  }
}

/// The name of an option that was given an empty text and has no use for one; "" without any. Lists
/// may be empty, and what stands for nothing where it is.
inline std::string empty_option(const CLI::App& app) {
  static const std::set<std::string> kMayBeEmpty{"data",         "prompt",    "sets",
                                                 "task-columns", "task-time", "only"};
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_single_name();
    const auto& given = option->results();
    if (!option->nonpositional() || option->get_type_name() == "INT,INT,..." ||
        kMayBeEmpty.contains(name))
      continue;
    if (std::count(given.begin(), given.end(), "") > 0 && option->get_expected_min() > 0)
      return "--" + name;
  }
  for (const CLI::App* below : app.get_subcommands()) {
    if (const std::string name = empty_option(*below); !name.empty()) return name;
  }
  return "";
}

/// Parses a command's arguments (those after its name). Gives the exit code where the command is
/// done with that: 0 after --help, 2 after a usage error, which it has then printed.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> arguments(argv, argv + argc);
  complete_switches(app, arguments);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(arguments));
    const std::string empty = empty_option(app);
    if (empty.empty()) return std::nullopt;
    fmt::print(stderr, "error: {} is empty; expected a value; see `{} --help`\n", empty,
               app.get_name());
    return 2;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "error: {}; see `{} --help`\n", error.what(), app.get_name());
    return 2;
  }
}

}  // namespace deq::cli
