#include "deq/train/gradient_norm.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <cmath>

namespace deq {

using at::Tensor;

namespace {

/// Eight sums side by side, added in order at the end: one order on any number of threads.
double sum_of_squares(const Tensor& gradient) {
  constexpr int64_t kSums = 8;
  const Tensor held = gradient.cpu().contiguous();
  double sums[kSums] = {};
  AT_DISPATCH_FLOATING_TYPES(held.scalar_type(), "sum of squares", [&] {
    const auto* from = held.data_ptr<scalar_t>();
    const int64_t n = held.numel(), whole = n - n % kSums;
    for (int64_t i = 0; i < whole; i += kSums) {
      for (int64_t k = 0; k < kSums; ++k) sums[k] += double(from[i + k]) * double(from[i + k]);
    }
    for (int64_t i = whole; i < n; ++i) sums[i - whole] += double(from[i]) * double(from[i]);
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

double gradient_norm(const NamedTensors& parameters) {
  double sum = 0;
  for (const auto& [name, parameter] : parameters) {
    if (parameter.grad().defined()) sum += sum_of_squares(parameter.grad());
  }
  return std::sqrt(sum);
}

}  // namespace deq
