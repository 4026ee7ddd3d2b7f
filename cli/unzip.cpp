// The format: PKWARE's APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (central
// directory), 4.3.16 (its end). Numbers are little-endian.
#include "cli/unzip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>

#include "deq/base/printable.h"
#include "deq/files/files.h"

namespace deq::cli {
namespace {

constexpr uint64_t kMostBytes = uint64_t{2} << 30;
constexpr size_t kEndSize = 22, kCentralSize = 46, kLocalSize = 30;

struct Member {
  std::string name;  // without its folder
  uint64_t method, checksum, packed, size, header;
};

class Archive {
 public:
  explicit Archive(const std::filesystem::path& path)
      : name_(printable(path.string(), 400)), bytes_(read_file(path, kMostBytes)) {
    const size_t end = bytes_.rfind("PK\5\6");
    require(end != bytes_.npos && end + kEndSize <= bytes_.size(), "it has no directory");
    size_t at = number(end + 16, 4);
    for (uint64_t left = number(end + 10, 2); left > 0; --left) {
      require(text(at, 4) == "PK\1\2", "its directory is damaged");
      const size_t length = number(at + 28, 2);
      const std::string_view path_inside = text(at + kCentralSize, length);
      members_.push_back({.name = std::string(path_inside.substr(path_inside.rfind('/') + 1)),
                          .method = number(at + 10, 2),
                          .checksum = number(at + 16, 4),
                          .packed = number(at + 20, 4),
                          .size = number(at + 24, 4),
                          .header = number(at + 42, 4)});
      at += kCentralSize + length + number(at + 30, 2) + number(at + 32, 2);
    }
  }

  void extract(const std::string& name, const std::filesystem::path& target) const {
    const auto member = std::find_if(members_.begin(), members_.end(),
                                     [&](const Member& each) { return each.name == name; });
    require(member != members_.end(), "it has no '" + name + "'");
    require(text(member->header, 4) == "PK\3\4", "the header of '" + name + "' is damaged");
    const size_t start = member->header + kLocalSize + number(member->header + 26, 2) +
                         number(member->header + 28, 2);
    require(member->method == 8,  // deflate
            fmt::format("'{}' is packed by method {}; expected 8", name, member->method));
    FileWriter writer(target);
    inflate(*member, text(start, member->packed), writer);
    writer.commit();
  }

 private:
  void require(bool condition, const std::string& problem) const {
    DEQ_CHECK(condition, "{}: {}; expected a ZIP archive", name_, problem);
  }
  std::string_view text(size_t at, size_t count) const {
    require(at <= bytes_.size() && count <= bytes_.size() - at, "it is cut off");
    return std::string_view(bytes_).substr(at, count);
  }
  uint64_t number(size_t at, size_t count) const {
    uint64_t value = 0;
    for (const char byte : text(at, count)) {
      value = value >> 8 | uint64_t(static_cast<unsigned char>(byte)) << 8 * (count - 1);
    }
    return value;
  }

  void inflate(const Member& member, std::string_view packed, FileWriter& writer) const {
    z_stream stream{};
    require(inflateInit2(&stream, -MAX_WBITS) == Z_OK, "zlib cannot be started");
    const std::unique_ptr<z_stream, int (*)(z_streamp)> owner(&stream, inflateEnd);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream.avail_in = uInt(packed.size());  // a ZIP without its 64-bit extension: below 4 GiB
    std::string out(size_t{1} << 20, '\0');
    uint64_t size = 0;
    uLong checksum = crc32(0, nullptr, 0);
    int code = Z_OK;
    while (code == Z_OK && size <= member.size) {
      stream.next_out = reinterpret_cast<Bytef*>(out.data());
      stream.avail_out = uInt(out.size());
      code = ::inflate(&stream, Z_NO_FLUSH);
      const size_t made = out.size() - stream.avail_out;
      checksum = crc32(checksum, reinterpret_cast<const Bytef*>(out.data()), uInt(made));
      writer.write(out.data(), made);
      size += made;
    }
    require(code == Z_STREAM_END && size == member.size && checksum == member.checksum,
            "'" + member.name + "' is damaged");
  }

  std::string name_;
  std::string bytes_;
  std::vector<Member> members_;
};

}  // namespace

void unzip(const std::filesystem::path& archive, const std::vector<std::string>& names,
           const std::filesystem::path& folder) {
  const Archive opened(archive);
  for (const std::string& name : names) opened.extract(name, folder / name);
}

}  // namespace deq::cli
