// Files that are whole or absent: every writer here goes through a temporary, fsync and rename, so
// that a crash, a full disk or a kill leaves the old file as it was.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "deq/base/error.h"

namespace deq {

/// The bytes of the file. Throws deq::Error when it is missing, a folder, unreadable, or larger
/// than `max_bytes`.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes);

/// Replaces the file by `bytes`, atomically. On any failure the old file is untouched.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// A regular file open for reading, of which exact byte counts are read in order.
class FileReader {
 public:
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  uint64_t size() const { return size_; }  ///< at opening
  void read(void* to, size_t count);       ///< throws deq::Error when the file ends before

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

/// Streams into a temporary beside the target; only `commit` makes it the target. Without `commit`
/// the temporary is removed at destruction.
class FileWriter {
 public:
  explicit FileWriter(const std::filesystem::path& target);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* from, size_t count);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  void overwrite(uint64_t offset, std::string_view bytes);  ///< of bytes already written
  void commit();

 private:
  [[noreturn]] void fail(int error_number) const;

  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty once committed
  int descriptor_ = -1;
};

}  // namespace deq
