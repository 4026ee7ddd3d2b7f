#include "deq/files/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "deq/base/printable.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunk = size_t{1} << 20;
// One system call moves at most 2 GiB on Linux; asking for less keeps the loop's arithmetic plain.
constexpr size_t kMostPerCall = size_t{1} << 30;

[[noreturn]] void fail_to_read(const fs::path& path, const char* reason) {
  throw Error(fmt::format("cannot read '{}': {}", printable(path.string(), 400), reason));
}

/// Up to `count` bytes, fewer only at the end of the file.
size_t read_some(const fs::path& path, int descriptor, void* to, size_t count) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::read(descriptor, static_cast<char*>(to) + done, std::min(count - done, kMostPerCall));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_to_read(path, std::strerror(errno));
    if (got == 0) break;
    done += size_t(got);
  }
  return done;
}

int open_to_read(const fs::path& path, struct stat& status) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_to_read(path, std::strerror(errno));
  const char* reason = nullptr;
  if (::fstat(descriptor, &status) != 0) {
    reason = std::strerror(errno);
  } else if (S_ISDIR(status.st_mode)) {
    reason = "it is a folder; expected a file";
  }
  if (reason) {
    ::close(descriptor);
    fail_to_read(path, reason);
  }
  return descriptor;
}

struct Closer {
  int descriptor;
  ~Closer() { ::close(descriptor); }
};

/// Makes a rename durable. Some file systems cannot sync a folder, and say EINVAL.
int sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return errno;
  Closer closer{descriptor};
  return ::fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : errno;
}

}  // namespace

std::string read_file(const fs::path& path, uint64_t max_bytes) {
  struct stat status {};
  Closer closer{open_to_read(path, status)};
  const auto too_large = [&](uint64_t size) {
    fail_to_read(
        path, fmt::format("it has {} bytes or more; expected at most {}", size, max_bytes).c_str());
  };
  const uint64_t announced = status.st_size > 0 ? uint64_t(status.st_size) : 0;
  if (announced > max_bytes) too_large(announced);
  // Read to the end rather than to st_size: a pipe has none, and a file may grow meanwhile.
  std::string bytes;
  bytes.reserve(announced + 1);
  for (size_t got = 1; got > 0;) {
    const size_t before = bytes.size();
    const size_t wanted = before < announced ? announced + 1 - before : kChunk;
    bytes.resize(before + wanted);
    got = read_some(path, closer.descriptor, bytes.data() + before, wanted);
    bytes.resize(before + got);
    if (bytes.size() > max_bytes) too_large(bytes.size());
    if (got < wanted) break;
  }
  return bytes;
}

FileReader::FileReader(const fs::path& path) : path_(path) {
  struct stat status {};
  descriptor_ = open_to_read(path, status);
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    fail_to_read(path, "it is a device or pipe; expected a file");
  }
  size_ = uint64_t(status.st_size);
}

FileReader::~FileReader() { ::close(descriptor_); }

void FileReader::read(void* to, size_t count) {
  if (read_some(path_, descriptor_, to, count) != count) fail_to_read(path_, "it ended early");
}

void FileWriter::fail(int error_number) const {
  throw Error(fmt::format("cannot write '{}': {}", printable(target_.string(), 400),
                          std::strerror(error_number)));
}

FileWriter::FileWriter(const fs::path& target) : target_(target) {
  struct stat status {};
  if (::stat(target.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) fail(EISDIR);
    // A rename would put a plain file in the place of /dev/null.
    DEQ_CHECK(S_ISREG(status.st_mode), "cannot write '{}': it is a device or pipe; expected a file",
              printable(target.string(), 400));
    std::error_code error;
    if (fs::is_symlink(target, error))
      target_ = fs::canonical(target, error);  // keep the link itself
    if (error) fail(error.value());
  }
  static std::atomic<uint64_t> counter{0};
  for (int attempt = 0; attempt < 100 && descriptor_ < 0; ++attempt) {
    temporary_ = target_;
    temporary_ += fmt::format(".{}-{}.tmp", ::getpid(), counter++);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) fail(errno);
  if (status.st_mode != 0) ::fchmod(descriptor_, status.st_mode & 07777);  // as it was, if allowed
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void FileWriter::write(const void* from, size_t count) {
  for (size_t done = 0; done < count;) {
    const ssize_t put = ::write(descriptor_, static_cast<const char*>(from) + done,
                                std::min(count - done, kMostPerCall));
    if (put < 0 && errno != EINTR) fail(errno);
    if (put > 0) done += size_t(put);
    if (put == 0) fail(ENOSPC);
  }
}

void FileWriter::overwrite(uint64_t offset, std::string_view bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put =
        ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done, off_t(offset + done));
    if (put < 0 && errno != EINTR) fail(errno);
    if (put > 0) done += size_t(put);
    if (put == 0) fail(ENOSPC);
  }
}

void FileWriter::commit() {
  DEQ_CHECK(!temporary_.empty(), "'{}' is already written", printable(target_.string(), 400));
  if (::fsync(descriptor_) != 0) fail(errno);
  // Network file systems report a full disk only here.
  if (::close(std::exchange(descriptor_, -1)) != 0) fail(errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(errno);
  temporary_.clear();
  const fs::path folder = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
  if (const int error_number = sync_folder(folder)) fail(error_number);
}

void write_file(const fs::path& path, std::string_view bytes) {
  FileWriter writer(path);
  writer.write(bytes);
  writer.commit();
}

}  // namespace deq
