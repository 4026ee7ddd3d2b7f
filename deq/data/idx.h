// Files in the IDX format, as MNIST and what followed it come in: two zero bytes, a byte for the
// type, one for the number of dimensions, their sizes as 32-bit numbers, and the numbers; the most
// significant byte first throughout (http://yann.lecun.com/exdb/mnist, "The IDX file format").
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <string_view>

namespace deq {

/// The tensor of a file: uint8, int8, int16, int32, float or double. Throws deq::Error for a file
/// that is missing, is no IDX file (of one that is compressed it says so), or is shorter or longer
/// than its sizes say.
at::Tensor read_idx(const std::filesystem::path& path);

/// The same from memory; `source` names the bytes in errors.
at::Tensor parse_idx(std::string_view bytes, const std::string& source);

}  // namespace deq
