#include "deq/data/text_reader.h"

#include <algorithm>

#include "deq/base/printable.h"
#include "deq/base/utf8.h"

namespace deq {
namespace {

constexpr int64_t kChunk = int64_t{1} << 20;

}  // namespace

TextReader::TextReader(const std::filesystem::path& path, Unit unit)
    : name_(printable(path.string(), 400)), unit_(unit), file_(path) {
  DEQ_CHECK(file_.size() > 0, "{} is empty; expected text", name_);
}

/// How much of `carry_` ends with a whole token; all of it when nothing more will come. Of what was
/// carried over, the first `before` bytes, it is known that no space is in it: looking there again
/// for each piece would take a time quadratic in the length of a word.
size_t TextReader::whole(size_t before, bool last) const {
  size_t cut = carry_.size();
  if (last || unit_ == Unit::Byte) return cut;
  if (is_spaced(unit_)) {
    const size_t space = std::string_view(carry_).substr(before).find_last_of(" \n\t\r\v\f");
    return space == carry_.npos ? 0 : before + space + 1;
  }
  for (size_t back = 1; back <= std::min<size_t>(3, cut); ++back) {
    const auto byte = static_cast<unsigned char>(carry_[cut - back]);
    const size_t needed = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    if (byte >= 0xC0 && needed > back) return cut - back;
    if (byte < 0x80 || byte >= 0xC0) break;
  }
  return cut;
}

void TextReader::check(std::string_view piece) const {
  if (unit_ == Unit::Byte) return;
  const int64_t offset = position_ - int64_t(carry_.size());
  const size_t zero = piece.find('\0');
  DEQ_CHECK(zero == piece.npos,
            "{}: byte {} is NUL, so this is binary or UTF-16; expected UTF-8 text (task 'bytes' "
            "takes any file)",
            name_, offset + int64_t(zero));
  const size_t invalid = find_invalid_utf8(piece);
  DEQ_CHECK(
      invalid == piece.npos,
      "{}: byte {} (0x{:02x}) is not UTF-8; expected UTF-8 text (task 'bytes' takes any file)",
      name_, offset + int64_t(invalid), static_cast<unsigned char>(piece[invalid]));
}

void TextReader::read_until(int64_t end, const Use& use) {
  end = std::min(end, size());
  while (position_ < end) {
    const int64_t count = std::min(end - position_, kChunk);
    const size_t before = carry_.size();
    carry_.resize(before + size_t(count));
    file_.read(carry_.data() + before, size_t(count));
    position_ += count;
    const bool last = position_ == size();
    const size_t cut = whole(before, last);
    std::string_view piece = std::string_view(carry_).substr(0, cut);
    check(piece);
    int64_t offset = position_ - int64_t(carry_.size());
    if (offset == 0 && unit_ != Unit::Byte) {
      const size_t all = piece.size();
      piece = without_mark(piece);
      offset = int64_t(all - piece.size());
    }
    use(piece, offset);
    const bool unfinished = last && unit_ == Unit::Word && carry_.back() != '\n';
    carry_.erase(0, cut);
    if (unfinished) use("\n", position_);
  }
}

}  // namespace deq
