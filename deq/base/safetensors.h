// Named tensors in a file, in the safetensors format: https://github.com/huggingface/safetensors
// docs/checkpoint.md says what this library adds to it.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace deq {

/// Tensors are contiguous, on the CPU, and own their memory.
struct TensorFile {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Writes atomically (see files.h), tensor by tensor: only one that is not contiguous or not on the
/// CPU is copied, and one at a time. The metadata keys "deq_format" and "deq_sha256" are set here;
/// they protect every byte of the file, and loading verifies and removes them.
void save_tensors(const std::filesystem::path& path,
                  const std::map<std::string, at::Tensor>& tensors,
                  const std::map<std::string, std::string>& metadata = {});

/// Reads each tensor straight into its memory. Throws deq::Error for a file that is not exactly
/// valid, and for one of ours in which any bit has changed.
TensorFile load_tensors(const std::filesystem::path& path);

/// The same from memory; `source` names the bytes in errors.
TensorFile parse_tensors(std::string_view bytes, const std::string& source);

}  // namespace deq
