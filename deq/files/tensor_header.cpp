#include "deq/files/tensor_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "deq/base/error.h"
#include "deq/base/printable.h"

namespace deq::detail {
namespace {

struct Dtype {
  const char* name;
  uint64_t bits;
  at::ScalarType type = at::ScalarType::Undefined;  ///< no tensor of ours has it
};
constexpr Dtype kDtypes[] = {{"F64", 64, at::kDouble},
                             {"F32", 32, at::kFloat},
                             {"F16", 16, at::kHalf},
                             {"BF16", 16, at::kBFloat16},
                             {"I64", 64, at::kLong},
                             {"I32", 32, at::kInt},
                             {"I16", 16, at::kShort},
                             {"I8", 8, at::kChar},
                             {"U8", 8, at::kByte},
                             {"BOOL", 8, at::kBool},
                             {"C64", 64},
                             {"U64", 64},
                             {"U32", 32},
                             {"U16", 16},
                             {"F8_E4M3", 8},
                             {"F8_E5M2", 8},
                             {"F8_E8M0", 8},
                             {"F8_E4M3FNUZ", 8},
                             {"F8_E5M2FNUZ", 8},
                             {"F6_E2M3", 6},
                             {"F6_E3M2", 6},
                             {"F4", 4}};
constexpr uint64_t kMostBytes = uint64_t{1} << 62;
constexpr size_t kMostDimensions = 64;  // what at::TensorIterator handles

/// What the JSON says of one tensor, before it is checked.
struct RawEntry {
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape, offsets;
};

/// Receives the JSON as events, since a parsed document would have dropped duplicate names, and so
/// that nesting deeper than the format's is refused at once.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::map<std::string, RawEntry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override {  // some writers' way to say that there is none
    return (inside_ == Inside::kTop && name_ == "__metadata__") || refuse("null");
  }
  bool boolean(bool value) override { return refuse(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return refuse(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return refuse(text); }
  bool binary(binary_t&) override { return refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (inside_ != Inside::kArray) return refuse(std::to_string(value));
    DEQ_CHECK(value < kMostBytes, "{} has {} = {}; expected below 2^62", where(), field_, value);
    DEQ_CHECK(array_->size() < kMostDimensions, "{} has more than {} numbers in {}", where(),
              kMostDimensions, field_);
    array_->push_back(value);
    return true;
  }

  bool string(string_t& text) override {
    if (inside_ == Inside::kMetadata) {
      metadata[field_] = std::move(text);
    } else if (inside_ == Inside::kTensor && field_ == "dtype") {
      entry_->dtype = std::move(text);
    } else {
      return refuse("'" + printable(text) + "'");
    }
    return true;
  }

  bool start_object(size_t) override {
    if (inside_ == Inside::kStart) {
      inside_ = Inside::kTop;
    } else if (inside_ == Inside::kTop) {
      inside_ = name_ == "__metadata__" ? Inside::kMetadata : Inside::kTensor;
    } else {
      return refuse("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (inside_ == Inside::kTop) {
      name_ = std::move(name);
      if (name_ == "__metadata__") {
        DEQ_CHECK(!std::exchange(has_metadata_, true), "__metadata__ occurs twice");
      } else {
        const auto [place, is_new] = entries.try_emplace(name_);
        DEQ_CHECK(is_new, "tensor '{}' occurs twice", printable(name_));
        entry_ = &place->second;
      }
      return true;
    }
    field_ = std::move(name);
    if (inside_ == Inside::kMetadata) {
      DEQ_CHECK(metadata.emplace(field_, "").second, "metadata '{}' occurs twice",
                printable(field_));
      return true;
    }
    const bool known = field_ == "dtype" || field_ == "shape" || field_ == "data_offsets";
    DEQ_CHECK(known, "{} has '{}'; known: dtype, shape, data_offsets", where(), printable(field_));
    const bool is_new = field_ == "dtype"   ? !entry_->dtype
                        : field_ == "shape" ? !entry_->shape
                                            : !entry_->offsets;
    DEQ_CHECK(is_new, "{} has {} twice", where(), field_);
    return true;
  }

  bool end_object() override {
    inside_ = inside_ == Inside::kTop ? Inside::kStart : Inside::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (inside_ != Inside::kTensor || field_ == "dtype") return refuse("an array");
    inside_ = Inside::kArray;
    array_ = &(field_ == "shape" ? entry_->shape : entry_->offsets).emplace();
    return true;
  }

  bool end_array() override {
    inside_ = Inside::kTensor;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    std::string_view text = error.what();
    text.remove_prefix(
        std::min(text.size(), text.find(']') + 2));  // "[json.exception.parse_error.101] "
    throw Error(fmt::format("its header is no JSON: {}", printable(text, 200)));
  }

 private:
  enum class Inside { kStart, kTop, kMetadata, kTensor, kArray };  // of what the next event is

  std::string where() const {
    if (inside_ == Inside::kMetadata) return fmt::format("metadata '{}'", printable(field_));
    return fmt::format("tensor '{}'", printable(name_));
  }

  [[noreturn]] bool refuse(const std::string& value) const {
    const std::string got = printable(value);
    switch (inside_) {
      case Inside::kStart:
        throw Error(fmt::format("its header is {}; expected an object", got));
      case Inside::kTop:
        throw Error(fmt::format("'{}' is {}; expected an object", printable(name_), got));
      case Inside::kMetadata:
        throw Error(fmt::format("{} is {}; expected a string", where(), got));
      case Inside::kArray:
        throw Error(
            fmt::format("{} has {} = {}; expected a whole number >= 0", where(), field_, got));
      case Inside::kTensor:
        break;
    }
    throw Error(fmt::format("{} has {} = {}; expected {}", where(), field_, got,
                            field_ == "dtype" ? "a string" : "an array of whole numbers"));
  }

  Inside inside_ = Inside::kStart;
  bool has_metadata_ = false;
  std::string name_, field_;
  RawEntry* entry_ = nullptr;
  std::vector<uint64_t>* array_ = nullptr;
};

/// The bytes of a tensor, with every product of its dimensions (zeros apart, since strides are
/// computed without them) below 2^62.
uint64_t byte_count(const std::string& name, const std::vector<int64_t>& shape, uint64_t bits) {
  uint64_t strides = (bits + 7) / 8, elements = 1;
  for (const int64_t size : shape) {
    const uint64_t factor = size > 0 ? uint64_t(size) : 1;
    DEQ_CHECK(strides <= kMostBytes / factor,
              "tensor '{}' has shape [{}]; expected less than 2^62 bytes", printable(name),
              fmt::join(shape, ", "));
    strides *= factor;
    elements *= uint64_t(size);
  }
  return elements / 8 * bits + (elements % 8 * bits + 7) / 8;
}

TensorEntry checked(const std::string& name, const RawEntry& raw, uint64_t data_bytes) {
  const std::string shown = printable(name);
  DEQ_CHECK(raw.dtype && raw.shape && raw.offsets, "tensor '{}' has no {}", shown,
            !raw.dtype   ? "dtype"
            : !raw.shape ? "shape"
                         : "data_offsets");
  const Dtype* found = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                    [&](const Dtype& dtype) { return *raw.dtype == dtype.name; });
  DEQ_CHECK(found != std::end(kDtypes), "tensor '{}' has dtype '{}'; known: {}", shown,
            printable(*raw.dtype), known_dtypes());
  DEQ_CHECK(raw.offsets->size() == 2, "tensor '{}' has {} data_offsets; expected 2", shown,
            raw.offsets->size());
  TensorEntry entry{name,
                    found->type,
                    {raw.shape->begin(), raw.shape->end()},
                    (*raw.offsets)[0],
                    (*raw.offsets)[1],
                    found->type == at::ScalarType::Undefined ? found->name : ""};
  DEQ_CHECK(entry.begin <= entry.end && entry.end <= data_bytes,
            "tensor '{}' has data_offsets [{}, {}]; expected within the {} bytes of data", shown,
            entry.begin, entry.end, data_bytes);
  const uint64_t expected = byte_count(name, entry.shape, found->bits);
  DEQ_CHECK(entry.end - entry.begin == expected,
            "tensor '{}' has {} bytes; expected {} for {} [{}]", shown, entry.end - entry.begin,
            expected, found->name, fmt::join(entry.shape, ", "));
  return entry;
}

}  // namespace

TensorHeader parse_header(std::string_view json, uint64_t data_bytes) {
  // The format wants the brace first; nlohmann would skip white space and a byte-order mark.
  DEQ_CHECK(!json.empty() && json.front() == '{', "its header does not begin with '{{'");
  // It would also take a zero byte for the end, and let anything follow.
  DEQ_CHECK(json.find('\0') == json.npos, "its header is no JSON: byte {} is zero",
            json.find('\0'));
  HeaderReader reader;
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  TensorHeader header;
  header.metadata = std::move(reader.metadata);
  for (const auto& [name, raw] : reader.entries)
    header.entries.push_back(checked(name, raw, data_bytes));
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const TensorEntry& entry : header.entries) {
    DEQ_CHECK(entry.begin == covered,
              "tensor '{}' begins at byte {} of the data; expected {}, where the {} ends",
              printable(entry.name), entry.begin, covered,
              covered == 0 ? "header" : "tensor before it");
    covered = entry.end;
  }
  DEQ_CHECK(covered == data_bytes, "its data has {} bytes; expected {}, where the last tensor ends",
            data_bytes, covered);
  return header;
}

std::string known_dtypes() {
  std::string names;
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == at::ScalarType::Undefined) continue;
    names += (names.empty() ? "" : ", ") + std::string(dtype.name);
  }
  return names;
}

std::string dtype_name(at::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == type && type != at::ScalarType::Undefined) return dtype.name;
  }
  throw Error(fmt::format("dtype {}; known: {}", c10::toString(type), known_dtypes()));
}

std::string format_header(const TensorHeader& header) {
  const auto json = [](const std::string& text) {
    try {
      return nlohmann::json(text).dump();
    } catch (const nlohmann::json::exception&) {
      throw Error(fmt::format("'{}' is not UTF-8; names and metadata must be", printable(text)));
    }
  };
  std::string out(kOwnHeader);
  out.append(kDigestDigits, '0');
  out += '"';
  for (const auto& [key, value] : header.metadata) {
    if (key != "deq_format" && key != "deq_sha256") out += "," + json(key) + ":" + json(value);
  }
  out += "}";
  for (const TensorEntry& entry : header.entries) {
    DEQ_CHECK(entry.name != "__metadata__",
              "'__metadata__' is a tensor's name; it is the format's own");
    out +=
        fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json(entry.name),
                    dtype_name(entry.dtype), fmt::join(entry.shape, ","), entry.begin, entry.end);
  }
  out += "}";
  out.append((8 - out.size() % 8) % 8, ' ');
  DEQ_CHECK(out.size() <= kMostHeaderBytes, "names and metadata take {} bytes; expected at most {}",
            out.size(), kMostHeaderBytes);
  return out;
}

}  // namespace deq::detail
