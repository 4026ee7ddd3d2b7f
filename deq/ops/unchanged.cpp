#include "deq/ops/unchanged.h"

#include <ATen/ATen.h>

#include "deq/base/error.h"

namespace deq::ops {

Unchanged::Unchanged(const std::vector<std::pair<const char*, at::Tensor>>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined() || tensor.is_inference()) continue;
    seen_.push_back({name, tensor.detach(), int64_t(tensor._version())});
  }
}

void Unchanged::check(const char* where) const {
  for (const Seen& seen : seen_) {
    const auto now = int64_t(seen.tensor._version());
    DEQ_CHECK(now == seen.version,
              "{}: {} was changed in place (version {}) after f, or its tape, was made for it; "
              "expected version {}: bind or evaluate f anew after such a change",
              where, seen.name, now, seen.version);
  }
}

}  // namespace deq::ops
