#include "deq/data/idx.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "deq/base/error.h"
#include "deq/base/printable.h"
#include "deq/files/files.h"

namespace deq {
namespace {

constexpr uint64_t kMostBytes = uint64_t(1) << 31;

uint8_t byte_at(std::string_view bytes, size_t i) { return static_cast<uint8_t>(bytes[i]); }

at::ScalarType type_of(uint8_t code, const std::string& source) {
  switch (code) {
    case 0x08:
      return at::kByte;
    case 0x09:
      return at::kChar;
    case 0x0B:
      return at::kShort;
    case 0x0C:
      return at::kInt;
    case 0x0D:
      return at::kFloat;
    case 0x0E:
      return at::kDouble;
    default:
      throw Error(
          fmt::format("{}: numbers of type {:#04x}; expected one of the IDX format: 0x08, "
                      "0x09, 0x0b, 0x0c, 0x0d, 0x0e",
                      source, code));
  }
}

void check_beginning(std::string_view bytes, const std::string& source) {
  DEQ_CHECK(bytes.size() < 2 || byte_at(bytes, 0) != 0x1F || byte_at(bytes, 1) != 0x8B,
            "{}: is compressed by gzip; expected an IDX file: unpack it with gunzip", source);
  DEQ_CHECK(bytes.size() >= 4 && bytes[0] == 0 && bytes[1] == 0,
            "{}: {} bytes that are no IDX file; expected one, which begins with two zero bytes",
            source, bytes.size());
}

}  // namespace

at::Tensor parse_idx(std::string_view bytes, const std::string& source) {
  check_beginning(bytes, source);
  const at::ScalarType type = type_of(byte_at(bytes, 2), source);
  const size_t dimensions = byte_at(bytes, 3), begin = 4 + 4 * dimensions;
  DEQ_CHECK(bytes.size() >= begin, "{}: ends within the sizes of its {} dimensions", source,
            dimensions);
  std::vector<int64_t> sizes;
  uint64_t numbers = 1;
  const uint64_t width = c10::elementSize(type);
  for (size_t d = 0; d < dimensions; ++d) {
    uint64_t size = 0;
    for (size_t i = 0; i < 4; ++i) size = size << 8 | byte_at(bytes, 4 + 4 * d + i);
    sizes.push_back(int64_t(size));
    numbers = size == 0 ? 0 : std::min(numbers, kMostBytes) * size;  // cannot overflow
  }
  DEQ_CHECK(numbers <= kMostBytes && bytes.size() - begin == numbers * width,
            "{}: {} bytes behind sizes [{}] of {}; expected {}", source, bytes.size() - begin,
            fmt::join(sizes, ", "), c10::toString(type),
            numbers <= kMostBytes ? std::to_string(numbers * width) : "smaller sizes");
  at::Tensor out = at::empty(sizes, type);
  char* to = static_cast<char*>(out.data_ptr());
  if (numbers > 0) std::memcpy(to, bytes.data() + begin, numbers * width);
  for (uint64_t i = 0; width > 1 && i < numbers; ++i)
    std::reverse(to + i * width, to + (i + 1) * width);
  return out;
}

at::Tensor read_idx(const std::filesystem::path& path) {
  return parse_idx(read_file(path, kMostBytes), printable(path.string()));
}

}  // namespace deq
