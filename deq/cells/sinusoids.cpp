#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "deq/cells/transformer.h"

namespace deq {

using at::Tensor;

namespace {

/// LibTorch's sines are of vectors in some places and of single numbers in others, by how threads
/// share them out.
template <class T>
Tensor waves(int64_t first, int64_t count, const Tensor& frequency) {
  const Tensor factors = frequency.contiguous();
  const int64_t F = factors.size(0);
  const Tensor out = at::empty({count, 2 * F}, frequency.options());
  const T* const factor = factors.data_ptr<T>();
  T* const to = out.data_ptr<T>();
  constexpr int64_t kAtLeast = 2048;  // sines for a thread
  at::parallel_for(0, count, std::max<int64_t>(1, kAtLeast / F), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t f = 0; f < F; ++f) {
        const T angle = T(first - i) * factor[f];
        to[i * 2 * F + f] = std::sin(angle);
        to[i * 2 * F + F + f] = std::cos(angle);
      }
    }
  });
  return out;
}

}  // namespace

Tensor sinusoids(int64_t first, int64_t count, const Tensor& frequency) {
  if (frequency.is_cpu() && frequency.scalar_type() == at::kFloat)
    return waves<float>(first, count, frequency);
  if (frequency.is_cpu() && frequency.scalar_type() == at::kDouble)
    return waves<double>(first, count, frequency);
  const Tensor distance = double(first) - at::arange(count, frequency.options());
  const Tensor angle = distance.unsqueeze(1) * frequency.unsqueeze(0);  // (count, F)
  return at::cat({angle.sin(), angle.cos()}, 1);
}

}  // namespace deq
