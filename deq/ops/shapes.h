#pragma once

#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

#include <string>

namespace deq::ops {

/// As error messages say it: "[2, 3]", or "undefined".
inline std::string shape_of(const at::Tensor& t) {
  return t.defined() ? fmt::format("[{}]", fmt::join(t.sizes(), ", ")) : "undefined";
}

}  // namespace deq::ops
