// What the fuzz targets demand of every input; tests/base/corpus_test.cpp demands it of the corpus.
#pragma once

#include <ATen/core/Tensor.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "deq/base/fields.h"
#include "deq/base/toml.h"
#include "deq/files/safetensors.h"
#include "deq/files/sha256.h"
#include "deq/files/tensor_header.h"
#include "tests/base/sample_options.h"

namespace deq::fuzz {

/// No deq::Error: what throws it is a finding.
inline void demand(bool condition, const std::string& what) {
  if (!condition) throw std::logic_error(what);
}

/// Runs `action`; true when it succeeds. Any exception but a deq::Error of one line is a finding.
template <class Action>
bool accepted(Action&& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    const std::string message = error.what();
    demand(message.find_first_of("\n\r") == message.npos, "not one line: " + message);
    demand(!message.empty() && message.size() < 1000, "no readable size: " + message);
    return false;
  }
}

inline bool parse_safetensors(std::string_view bytes) {
  return accepted([&] {
    const TensorFile file = parse_tensors(bytes, "fuzz");
    size_t total = 0;
    for (const auto& [name, tensor] : file.tensors) {
      demand(tensor.is_contiguous(), "not contiguous: " + name);
      total += tensor.nbytes();
    }
    demand(total <= bytes.size(), "more data than bytes");
    for (const auto& [name, type] : file.unread)
      demand(!file.tensors.contains(name) && !type.empty(), "read and passed over: " + name);
  });
}

/// Whatever the bytes, parse_tensors returns tensors that lie within them or throws a deq::Error.
inline bool safetensors(std::string_view bytes) {
  const bool valid = parse_safetensors(bytes);
  // No mutation guesses a SHA-256: state the right one, to get behind the integrity check.
  const size_t digest = 8 + detail::kOwnHeader.size();
  if (bytes.size() < digest + detail::kDigestDigits) return valid;
  if (!bytes.substr(8).starts_with(detail::kOwnHeader)) return valid;
  std::string repaired(bytes);
  repaired.replace(digest, detail::kDigestDigits, detail::kDigestDigits, '0');
  repaired.replace(digest, detail::kDigestDigits, sha256_hex(repaired));
  parse_safetensors(repaired);
  return valid;
}

/// Whatever the text, options are set or a deq::Error is thrown; and options that were set are
/// written as a file that reads back to the same options.
inline bool config(std::string_view bytes) {
  const std::string text(bytes);
  testing::Options options, again;
  if (!accepted([&] { assign_options(options, parse_toml(text, "fuzz")); })) return false;
  const std::string written = to_toml(selected_options(options));
  const bool read = accepted([&] { assign_options(again, parse_toml(written, "written")); });
  demand(read && to_toml(selected_options(again)) == written, "does not read back: " + written);
  return true;
}

}  // namespace deq::fuzz
