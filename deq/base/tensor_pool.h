#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace deq {

/// Memory that is used again: a loop that takes its tensors from a pool allocates none after its
/// first rounds.
class TensorPool {
 public:
  TensorPool() = default;
  /// A copy starts empty: memory of two pools would never be free.
  TensorPool(const TensorPool&) {}
  TensorPool& operator=(const TensorPool&) { return *this; }
  TensorPool(TensorPool&&) = default;
  TensorPool& operator=(TensorPool&&) = default;

  /// Not initialised. Its memory is one that was handed out before and that nobody else holds any
  /// more, neither the tensor nor a view of it; where there is none of this shape and type, a new
  /// one. What was handed out outlives the pool as any tensor does.
  at::Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options);
  at::Tensor empty_like(const at::Tensor& t) { return empty(t.sizes(), t.options()); }

 private:
  std::vector<at::Tensor> tensors_;
};

/// From the pool, or without one a new tensor.
at::Tensor empty_from(TensorPool* pool, at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace deq
