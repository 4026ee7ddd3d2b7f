#include "deq/base/tensor_pool.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

Tensor TensorPool::empty(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const at::TensorOptions plain = options.requires_grad(false);
  for (const Tensor& t : tensors_) {
    const bool free = t.use_count() == 1 && t.storage().use_count() == 1;
    if (free && t.sizes() == sizes && t.dtype() == plain.dtype() && t.device() == plain.device())
      return t;
  }
  return tensors_.emplace_back(at::empty(sizes, plain));
}

Tensor empty_from(TensorPool* pool, at::IntArrayRef sizes, const at::TensorOptions& options) {
  return pool ? pool->empty(sizes, options) : at::empty(sizes, options.requires_grad(false));
}

}  // namespace deq
