// Flags from a struct's `fields()`: each option becomes --its-name with its help and default.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "deq/base/fields.h"

namespace deq::cli {

/// What help shows for a value of that type (OptionInfo::type).
inline std::string placeholder(const OptionInfo& info) {
  if (info.type == "bool") return "[true|false]";
  if (info.type == "choice") return "NAME";
  if (info.type == "list") return "INT,INT,...";
  return info.type == "int" ? "INT" : info.type == "float" ? "NUMBER" : "TEXT";
}

/// Whether help shows default values: not those that a command takes from elsewhere, such as a run.
enum class Defaults { Shown, Hidden };

/// The given values land in `given`, to be handed to assign_options, which checks them.
template <class T>
void add_options(CLI::App& app, const T& options, Assignments& given,
                 Defaults defaults = Defaults::Shown) {
  for (const OptionInfo& info : list_options(options)) {
    const bool is_switch = info.type == "bool";
    const auto take = [&given, key = info.key, is_switch](const std::string& value) {
      given[key] = is_switch && value.empty() ? "true" : value;
    };
    CLI::Option* option = app.add_option_function<std::string>(
        "--" + dashed(info.key), take, help_of(info, defaults == Defaults::Shown));
    option->type_name(placeholder(info));
    if (!info.group.empty()) option->group(info.group);
    if (is_switch) option->expected(0, 1);
  }
}

}  // namespace deq::cli
