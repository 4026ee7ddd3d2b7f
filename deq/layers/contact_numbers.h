#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "deq/layers/contact_sample.h"

namespace deq {

/// A contact's ten tensors, in the order of `Contact`, checked, in double.
struct ContactNumbers {
  static constexpr size_t kCount = 10;
  using Tensors = std::array<at::Tensor, kCount>;

  ContactShape shape;
  int64_t batch = 1;
  bool batched = false;  ///< whether any tensor has B
  Tensors given;         ///< as they came; zeros where undefined
  Tensors numbers;       ///< detached, contiguous, by sample or shared

  /// Throws deq::Error.
  explicit ContactNumbers(const Contact& contact);

  /// Of sample b.
  ContactData data(int64_t b) const;
  bool shared(size_t which) const;
};

}  // namespace deq
