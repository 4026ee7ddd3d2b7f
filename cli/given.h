// Options from a file and from flags.
#pragma once

#include <string>

#include "deq/base/toml.h"
#include "deq/files/files.h"

namespace deq::cli {

/// Options from the file of --config, then those of flags on top; `places` become those of the
/// file's that are left.
inline Assignments given_options(const std::string& config, const Assignments& flags,
                                 Places& places) {
  Assignments all;
  if (!config.empty()) all = parse_toml(read_file(config, 1 << 24), config, &places);
  for (const auto& [key, value] : flags) {
    all[key] = value;
    places.erase(key);
  }
  return all;
}

}  // namespace deq::cli
