// Whatever the bytes, parse_tensors returns tensors that lie within them or throws a deq::Error.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "deq/base/files.h"
#include "deq/base/safetensors.h"
#include "deq/base/tensor_header.h"
#include "fuzz/check.h"

namespace {

void parse(std::string_view bytes) {
  deq::fuzz::accepted([&] {
    const deq::TensorFile file = deq::parse_tensors(bytes, "fuzz");
    size_t total = 0;
    for (const auto& [name, tensor] : file.tensors) {
      if (!tensor.is_contiguous()) deq::fuzz::fail("not contiguous", name);
      total += tensor.nbytes();
    }
    if (total > bytes.size()) deq::fuzz::fail("more data than bytes", std::to_string(total));
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  parse(bytes);
  // No mutation guesses a SHA-256: state the right one, to get behind the integrity check.
  using namespace deq::detail;
  if (bytes.size() < 8 + kOwnHeader.size() + kDigestDigits) return 0;
  if (!bytes.substr(8).starts_with(kOwnHeader)) return 0;
  std::string repaired(bytes);
  const size_t digest = 8 + kOwnHeader.size();
  repaired.replace(digest, kDigestDigits, kDigestDigits, '0');
  repaired.replace(digest, kDigestDigits, deq::sha256_hex(repaired));
  parse(repaired);
  return 0;
}
