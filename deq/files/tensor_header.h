// The JSON header of a safetensors file, read and checked apart from the data.
//
//   file   = length (8 bytes, little-endian)  header (`length` bytes of JSON, space-padded)  data
//   header = {"__metadata__": {text: text, ...}, name: {"dtype": D, "shape": [...],
//             "data_offsets": [begin, end]}, ...}     offsets count from the start of the data
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace deq::detail {

/// The format's own limit.
constexpr uint64_t kMostHeaderBytes = 100'000'000;

/// How every header of ours begins; the 64 digits of the digest follow. Being at a fixed place,
/// they can be filled in after the data has been streamed, and the digest is over all other bytes.
constexpr std::string_view kOwnHeader = R"({"__metadata__":{"deq_format":"1","deq_sha256":")";
constexpr size_t kDigestDigits = 64;

/// One tensor as the header states it: where its data lies, from `begin` to before `end`.
struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;  ///< Undefined where there is an `other_type`
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
  std::string other_type = "";  ///< the format's name of a type that no tensor of ours has
};

/// What a header states, checked: entries that neither overlap nor leave a gap.
struct TensorHeader {
  std::vector<TensorEntry> entries;  ///< in the order of their data
  std::map<std::string, std::string> metadata;
};

/// Parses and checks: the entries of the result cover `data_bytes` exactly. Throws deq::Error.
TensorHeader parse_header(std::string_view json, uint64_t data_bytes);

/// The JSON, beginning with kOwnHeader and 64 zeros, padded so that 8 + its size divides by 8.
std::string format_header(const TensorHeader& header);

/// "F32" for at::kFloat; throws deq::Error for a dtype that the format or this library lacks.
std::string dtype_name(at::ScalarType dtype);
/// "F64, F32, ...": those that a tensor of ours may have.
std::string known_dtypes();

}  // namespace deq::detail
