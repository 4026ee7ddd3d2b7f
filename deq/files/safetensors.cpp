#include "deq/files/safetensors.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <optional>
#include <vector>

#include "deq/base/error.h"
#include "deq/base/printable.h"
#include "deq/files/files.h"
#include "deq/files/sha256.h"
#include "deq/files/tensor_header.h"

namespace deq {
namespace {

using detail::kDigestDigits;
using detail::kOwnHeader;
using detail::TensorEntry;
using detail::TensorHeader;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

/// Takes the next `count` bytes of a file or of memory.
using Take = std::function<void(void* to, size_t count)>;

bool is_own(std::string_view header) { return header.starts_with(kOwnHeader); }

/// The digest that the header states, for a file of ours. A header with one of our keys that is not
/// laid out as ours was changed: by a flipped bit in the other key, or by another program.
std::optional<std::string> stated_digest(const std::string& header, const TensorHeader& parsed) {
  const bool has_key = parsed.metadata.count("deq_format") || parsed.metadata.count("deq_sha256");
  if (!has_key) return std::nullopt;
  const auto digest = parsed.metadata.find("deq_sha256");
  DEQ_CHECK(is_own(header) && digest != parsed.metadata.end() &&
                digest->second.size() == kDigestDigits &&
                header.compare(kOwnHeader.size(), kDigestDigits, digest->second) == 0,
            "its header is not as it was written; a program that rewrites the file must drop the "
            "metadata "
            "keys deq_format and deq_sha256");
  return digest->second;
}

/// Goes past what is not wanted, without the memory that it would take.
void pass_over(uint64_t count, const Take& take, Sha256* sha) {
  std::string chunk(size_t(std::min<uint64_t>(count, 1 << 20)), '\0');
  for (uint64_t left = count; left > 0;) {
    const size_t next = size_t(std::min<uint64_t>(left, chunk.size()));
    take(chunk.data(), next);
    if (sha) sha->update(chunk.data(), next);
    left -= next;
  }
}

at::Tensor take_tensor(const TensorEntry& entry, const Take& take, Sha256* sha) {
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions(entry.dtype));
  const size_t count = entry.end - entry.begin;
  if (count == 0) return tensor;
  take(tensor.data_ptr(), count);
  if (sha) sha->update(tensor.data_ptr(), count);
  if (entry.dtype == at::kBool) {
    const auto* bytes = static_cast<const unsigned char*>(tensor.data_ptr());
    const auto* other =
        std::find_if(bytes, bytes + count, [](unsigned char byte) { return byte > 1; });
    DEQ_CHECK(other == bytes + count, "tensor '{}' has a BOOL of {}; expected 0 or 1",
              printable(entry.name), int(*other));
  }
  return tensor;
}

/// Header and data from `take`, of a file of `size` bytes; `own` becomes whether it is one of ours.
TensorFile read_tensors(uint64_t size, const Take& take, bool& own) {
  DEQ_CHECK(size >= 8, "it has {} bytes; expected at least 8", size);
  uint64_t length = 0;
  take(&length, sizeof length);
  DEQ_CHECK(length <= detail::kMostHeaderBytes, "its header has {} bytes; expected at most {}",
            length, detail::kMostHeaderBytes);
  DEQ_CHECK(length <= size - 8,
            "its header has {} bytes; expected at most {}, to the end of the file", length,
            size - 8);
  std::string json(length, '\0');
  take(json.data(), length);
  own = is_own(json);
  TensorHeader header = detail::parse_header(json, size - 8 - length);
  const std::optional<std::string> digest = stated_digest(json, header);
  std::optional<Sha256> sha;
  if (digest) {
    sha.emplace();
    sha->update(&length, sizeof length);
    sha->update(json.replace(kOwnHeader.size(), kDigestDigits, kDigestDigits, '0'));
    header.metadata.erase("deq_format");
    header.metadata.erase("deq_sha256");
  }
  TensorFile file;
  file.metadata = std::move(header.metadata);
  Sha256* hashed = sha ? &*sha : nullptr;
  for (const TensorEntry& entry : header.entries) {
    if (entry.other_type.empty()) {
      file.tensors.emplace(entry.name, take_tensor(entry, take, hashed));
    } else {
      pass_over(entry.end - entry.begin, take, hashed);
      file.unread.emplace(entry.name, entry.other_type);
    }
  }
  DEQ_CHECK(!sha || sha->hex() == *digest, "its contents do not match their SHA-256");
  return file;
}

/// read_tensors, with errors that say which file.
TensorFile read_named(const std::string& source, uint64_t size, const Take& take) {
  bool own = false;
  try {
    return read_tensors(size, take, own);
  } catch (const Error& error) {
    const std::string shown = printable(source, 400);
    throw Error(own ? fmt::format("checkpoint '{}' is damaged: {}", shown, error.what())
                    : fmt::format("'{}' is no valid safetensors file: {}", shown, error.what()));
  }
}

/// The tensor's values as they lie in the file.
at::Tensor plain(const at::Tensor& tensor) {
  return tensor.detach().to(at::kCPU).resolve_neg().contiguous();
}

TensorHeader plan(const std::map<std::string, at::Tensor>& tensors) {
  TensorHeader header;
  for (const auto& [name, tensor] : tensors) {
    const std::string shown = printable(name);
    DEQ_CHECK(tensor.defined(), "tensor '{}' is undefined", shown);
    DEQ_CHECK(tensor.layout() == at::kStrided && !tensor.is_meta(),
              "tensor '{}' is {}; expected dense, with data", shown,
              tensor.is_meta() ? "on the meta device" : "sparse");
    try {
      detail::dtype_name(tensor.scalar_type());
    } catch (const Error& error) {
      throw Error(fmt::format("tensor '{}' has {}", shown, error.what()));
    }
    header.entries.push_back(
        {name, tensor.scalar_type(), tensor.sizes().vec(), 0, tensor.nbytes(), ""});
  }
  // Wide elements first, so that each tensor is aligned for a reader that maps the file.
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const TensorEntry& a, const TensorEntry& b) {
                     return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
                   });
  uint64_t at = 0;
  for (TensorEntry& entry : header.entries) {
    entry.begin = at;
    at = entry.end += at;
  }
  return header;
}

[[noreturn]] void refuse_type(const std::string& name, const std::string& type,
                              const std::string& source) {
  throw Error(fmt::format("{}: tensor '{}' has dtype '{}'; known: {}", source, printable(name),
                          type, detail::known_dtypes()));
}

}  // namespace

const at::Tensor& tensor_of(const TensorFile& file, const std::string& name,
                            const std::string& source) {
  const auto unread = file.unread.find(name);
  if (unread != file.unread.end()) refuse_type(name, unread->second, source);
  const auto found = file.tensors.find(name);
  DEQ_CHECK(found != file.tensors.end(), "{}: tensor '{}' is missing", source, printable(name));
  return found->second;
}

void require_all_read(const TensorFile& file, const std::string& source) {
  if (!file.unread.empty())
    refuse_type(file.unread.begin()->first, file.unread.begin()->second, source);
}

TensorFile load_tensors(const std::filesystem::path& path) {
  FileReader reader(path);
  return read_named(path.string(), reader.size(),
                    [&](void* to, size_t count) { reader.read(to, count); });
}

TensorFile parse_tensors(std::string_view bytes, const std::string& source) {
  return read_named(source, bytes.size(), [&](void* to, size_t count) {
    if (count > 0) std::memcpy(to, bytes.data(), count);
    bytes.remove_prefix(count);
  });
}

void save_tensors(const std::filesystem::path& path,
                  const std::map<std::string, at::Tensor>& tensors,
                  const std::map<std::string, std::string>& metadata) {
  std::string json;
  TensorHeader header;
  try {
    header = plan(tensors);
    header.metadata = metadata;
    json = detail::format_header(header);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot write '{}': {}", printable(path.string(), 400), error.what()));
  }
  FileWriter writer(path);
  Sha256 sha;
  const auto put = [&](const void* from, size_t count) {
    writer.write(from, count);
    sha.update(from, count);
  };
  const uint64_t length = json.size();
  put(&length, sizeof length);
  put(json.data(), json.size());
  for (const TensorEntry& entry : header.entries) {
    const at::Tensor values = plain(tensors.at(entry.name));
    if (entry.end > entry.begin) put(values.data_ptr(), entry.end - entry.begin);
  }
  writer.overwrite(sizeof length + kOwnHeader.size(), sha.hex());
  writer.commit();
}

}  // namespace deq
