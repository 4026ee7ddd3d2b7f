// Options as flat TOML (toml.io, 1.0), one key each.
#pragma once

#include <string>
#include <vector>

#include "deq/base/fields.h"

namespace deq {

/// `options` as the lines of a TOML file that reads back to the same options.
std::string to_toml(const std::vector<OptionInfo>& options);
/// The flat key = value pairs of TOML text; `source` names it in errors. Tables are errors.
Assignments parse_toml(const std::string& text, const std::string& source);

}  // namespace deq
