// Several run folders on a command line: what they are called, and that they are different ones.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "deq/base/error.h"

namespace deq::cli {

/// What tables call the runs: their folders' names, or paths where these do not differ.
inline std::vector<std::string> names_of(const std::vector<std::string>& folders) {
  std::set<std::string> different;
  std::vector<std::string> names;
  for (const std::string& folder : folders) {
    const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
    names.push_back((path.has_filename() ? path : path.parent_path()).filename().string());
    different.insert(names.back());
  }
  return different.size() == names.size() && !different.contains("") ? names : folders;
}

/// Throws deq::Error for a folder that is named twice, however it is spelled.
inline void check_different(const std::vector<std::string>& folders) {
  std::set<std::filesystem::path> seen;
  for (const std::string& folder : folders) {
    std::error_code failed;
    const auto path = std::filesystem::weakly_canonical(std::filesystem::path(folder) / "", failed);
    DEQ_CHECK(failed || seen.insert(path).second,
              "run '{}' is named twice; expected different runs", folder);
  }
}

}  // namespace deq::cli
