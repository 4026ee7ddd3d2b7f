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
  /// Name -> type of what was passed over, since no tensor of ours has its type: the format's F8,
  /// F6, F4, U16, U32, U64 and C64. A file is read for the tensors beside them.
  std::map<std::string, std::string> unread = {};
};

/// The tensor of that name. Throws deq::Error, beginning with `source`, where it is missing, or was
/// passed over.
const at::Tensor& tensor_of(const TensorFile& file, const std::string& name,
                            const std::string& source);

/// Throws deq::Error for the first tensor that was passed over: for files whose tensors are all
/// wanted.
void require_all_read(const TensorFile& file, const std::string& source);

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
