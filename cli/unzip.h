// Just enough of the ZIP format for data sets that come as archives.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace deq::cli {

/// Writes the members called `names`, in whichever folder of the archive they stand, into `folder`.
/// Throws deq::Error when one is missing, damaged, or packed in a way that is not known here.
void unzip(const std::filesystem::path& archive, const std::vector<std::string>& names,
           const std::filesystem::path& folder);

}  // namespace deq::cli
