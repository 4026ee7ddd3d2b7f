#include "deq/solvers/layout.h"

#include <ATen/ATen.h>

namespace deq {

Layout::Layout(const at::Tensor& z, Scope scope, Order order) : scope(scope), order(order) {
  if (z.dim() >= 2) batch = z.size(0);
  if (z.dim() >= 3) positions = z.size(1);
  const int64_t outer = batch * positions;
  features = outer > 0 ? z.numel() / outer : 0;
}

at::Tensor Layout::fold(const at::Tensor& z) const {
  return z.reshape({rows(), width()}).contiguous();
}

}  // namespace deq
