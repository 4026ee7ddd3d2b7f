// Options as flat TOML (toml.io, 1.0), one key each.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "deq/base/fields.h"
#include "deq/base/option_error.h"

namespace deq {

/// `options` as the lines of a TOML file that reads back to the same options.
std::string to_toml(const std::vector<OptionInfo>& options);

/// Where options were set: key -> "run/config.toml:5".
using Places = std::map<std::string, std::string>;

/// The flat key = value pairs of TOML text; `source` names it in errors. Tables are errors.
Assignments parse_toml(const std::string& text, const std::string& source,
                       Places* places = nullptr);

/// assign_options; an error about an option that has a place begins with it.
template <class T>
void assign_options(T& options, const Assignments& values, const Places& places) {
  try {
    assign_options(options, values);
  } catch (const OptionError& error) {
    const auto place = places.find(error.key);
    if (place == places.end()) throw;
    throw OptionError(error.key, place->second + ": " + error.what());
  }
}

/// Sets the options that TOML text has.
template <class T>
void assign_toml(T& options, const std::string& text, const std::string& source) {
  Places places;
  const Assignments values = parse_toml(text, source, &places);
  assign_options(options, values, places);
}

}  // namespace deq
