// What a fast path holds in a layout of its own must be what the tape holds: LibTorch's operators
// raise where a tensor that backward needs was written in place, and so do these.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

namespace deq::ops {

/// Tensors, and their versions when this was made. Writes through `data()`, and those to inference
/// tensors, raise none: they are not seen, as LibTorch does not see them.
class Unchanged {
 public:
  Unchanged() = default;
  /// Names that live as long as this does; undefined tensors are left out.
  explicit Unchanged(const std::vector<std::pair<const char*, at::Tensor>>& tensors);

  /// Throws deq::Error where one was written in place since: "`where`: `name` was changed ...".
  void check(const char* where) const;

 private:
  struct Seen {
    const char* name;
    at::Tensor tensor;  // detached: the version is shared
    int64_t version;
  };
  std::vector<Seen> seen_;
};

}  // namespace deq::ops
