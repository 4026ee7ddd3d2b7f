// One file over HTTP(S), whole and checked, or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace deq::cli {

/// Downloads `url` to `target` through a temporary beside it, which becomes the target only when
/// its SHA-256 is `sha256`. On any failure (deq::Error: no connection, an HTTP error, a body cut
/// off, a full disk, another sum, Ctrl-C, SIGTERM) the temporary is gone and what stood at `target`
/// stays. Progress goes to stderr, on one line when that is a terminal. Gives the size in bytes.
uint64_t download(const std::string& url, const std::filesystem::path& target,
                  const std::string& sha256);

}  // namespace deq::cli
