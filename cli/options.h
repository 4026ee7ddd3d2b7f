// Flags from a struct's `fields()`: each option becomes --its-name with its help and default.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "deq/base/fields.h"

namespace deq::cli {

/// The given values land in `given`, to be handed to assign_options, which checks them.
template <class T>
void add_options(CLI::App& app, const T& defaults, Assignments& given) {
  for (const OptionInfo& info : list_options(defaults)) {
    std::string help = info.help;
    if (!info.choices.empty()) help += " {" + join(info.choices, ", ") + "}";
    if (!info.range.empty()) help += " (" + info.range + ")";
    if (!info.value.empty()) help += " [" + info.value + "]";
    const auto take = [&given, key = info.key](const std::string& value) { given[key] = value; };
    app.add_option_function<std::string>("--" + dashed(info.key), take, help);
  }
}

}  // namespace deq::cli
