#include "deq/files/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "deq/base/error.h"
#include "deq/base/printable.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

/// "last.safetensors.1234-5.tmp", as FileWriter names them.
bool is_temporary(const std::string& name) {
  const auto digits = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      if (!std::isdigit(static_cast<unsigned char>(name[i]))) return false;
    }
    return begin < end;
  };
  const std::string ending = ".tmp";
  if (name.size() <= ending.size() || !name.ends_with(ending)) return false;
  const size_t end = name.size() - ending.size();
  const size_t dash = name.rfind('-', end - 1);
  if (dash == std::string::npos || dash == 0) return false;
  const size_t dot = name.rfind('.', dash - 1);
  return dot != std::string::npos && digits(dot + 1, dash) && digits(dash + 1, end);
}

/// The process that wrote its number into the lock, or "another process" just before it does.
std::string holder(int descriptor) {
  char text[32] = {};
  if (::pread(descriptor, text, sizeof(text) - 1, 0) <= 0) return "another process";
  const long pid = std::strtol(text, nullptr, 10);
  return pid > 0 ? fmt::format("process {}", pid) : "another process";
}

}  // namespace

FolderLock::FolderLock(const fs::path& folder) {
  const std::string shown = printable(folder.string(), 400);
  descriptor_ = ::open((folder / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  DEQ_CHECK(descriptor_ >= 0, "cannot lock run folder '{}': {}", shown, std::strerror(errno));
  int got;
  do {
    got = ::flock(descriptor_, LOCK_EX | LOCK_NB);
  } while (got != 0 && errno == EINTR);
  if (got != 0) {
    const int error_number = errno;
    const std::string other = holder(descriptor_);
    ::close(std::exchange(descriptor_, -1));
    DEQ_CHECK(error_number != EWOULDBLOCK, "run folder '{}' is in use by {}", shown, other);
    throw Error(fmt::format("cannot lock run folder '{}': {}", shown, std::strerror(error_number)));
  }
  // The number only serves the other process's message: a full disk need not stop us here.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, pid.data(), pid.size(), 0) < 0) {
    errno = 0;
  }
  std::error_code ignored;
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    if (is_temporary(entry->path().filename().string())) fs::remove(entry->path(), ignored);
  }
}

FolderLock::~FolderLock() {
  // The file stays: removing it would let two processes hold locks on two files of one name.
  if (descriptor_ < 0) return;
  if (::ftruncate(descriptor_, 0) != 0) errno = 0;
  ::close(descriptor_);
}

void check_unlocked(const fs::path& folder) {
  const int descriptor = ::open((folder / "lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  const bool held = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  const std::string other = held ? holder(descriptor) : "";
  ::close(descriptor);
  DEQ_CHECK(!held, "run folder '{}' is in use by {}", printable(folder.string(), 400), other);
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

}  // namespace deq
