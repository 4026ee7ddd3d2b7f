// One process at a time in a run folder.
#pragma once

#include <filesystem>

namespace deq {

/// Holds a run folder for one process: flock on `<folder>/lock`, which the kernel releases even
/// when the process is killed. The folder must exist. Temporaries that a killed process left are
/// removed.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;

 private:
  int descriptor_ = -1;
};

/// Throws deq::Error, as FolderLock does, where another process holds the folder's lock now. Takes
/// and makes nothing: a folder that cannot be written to, or has no lock, is free.
void check_unlocked(const std::filesystem::path& folder);

}  // namespace deq
