// A text file in pieces: memory does not grow with the file, and no piece cuts a token.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "deq/data/vocabulary.h"
#include "deq/files/files.h"

namespace deq {

/// Words and characters must be UTF-8 without NUL; a byte order mark is skipped. Bytes are any
/// bytes.
class TextReader {
 public:
  using Use = std::function<void(std::string_view piece, int64_t offset)>;

  /// Throws deq::Error when the file is missing, a folder, a pipe or empty.
  TextReader(const std::filesystem::path& path, Unit unit);

  int64_t size() const { return int64_t(file_.size()); }
  const std::string& name() const { return name_; }  ///< the path, fit for a message

  /// Calls `use` for consecutive pieces, from where the last call ended up to byte `end`, or up to
  /// three bytes before where a character would be cut. An unfinished last line of words is ended.
  void read_until(int64_t end, const Use& use);

 private:
  size_t whole(size_t before, bool last) const;
  void check(std::string_view piece) const;

  std::string name_;
  Unit unit_;
  FileReader file_;
  int64_t position_ = 0;  // in the file, of the end of carry_
  std::string carry_;     // read, but not yet used
};

}  // namespace deq
