#include "deq/cells/cell.h"

#include <ATen/ATen.h>

#include "deq/base/error.h"

namespace deq {

at::Tensor latest(const at::Tensor& old, const at::Tensor& fresh, int64_t length) {
  const at::Tensor all = old.defined() ? at::cat({old, fresh.detach()}, 1) : fresh.detach();
  const int64_t kept = std::min(length, all.size(1));
  return all.narrow(1, all.size(1) - kept, kept).clone(at::MemoryFormat::Contiguous);
}

void check_bound_shapes(const char* cell, const at::Tensor& x, int64_t width,
                        const std::vector<History>& levels) {
  DEQ_CHECK(x.dim() == 3 && x.size(2) == width,
            "{}: x has shape [{}]; expected (batch, positions, {})", cell,
            fmt::join(x.sizes(), ", "), width);
  for (const History& history : levels) {
    for (const at::Tensor& part : {history.z, history.x, history.k, history.v}) {
      DEQ_CHECK(!part.defined() || (part.dim() == 3 && part.size(0) == x.size(0)),
                "{}: history of shape [{}]; expected (batch, positions, features) of batch {}",
                cell, fmt::join(part.sizes(), ", "), x.size(0));
    }
  }
}

}  // namespace deq
