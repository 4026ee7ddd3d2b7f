// A weight as the kernels read it: laid out in panels (packed.h), as it is or rounded to bfloat16.
#pragma once

#include <cstdint>

namespace deq::ops {

/// How the weights of a layout are kept. bfloat16: the first 16 bits of a float, rounded to
/// nearest; half the memory for products to read, which is what a product of a few rows waits for.
/// Sums are of floats either way.
enum class WeightType { Exact, Bfloat16 };

/// Two numbers of one row of a panel: of its first vector in the lower half, of its second in the
/// upper one.
using Bfloat16Pair = uint32_t;

/// Numbers in an element of a panel.
template <class E>
constexpr int64_t kNumbers = 1;
template <>
inline constexpr int64_t kNumbers<Bfloat16Pair> = 2;

/// Panels of a weight: one of the two.
template <class T>
struct Panels {
  const T* exact = nullptr;
  const Bfloat16Pair* rounded = nullptr;

  /// Those from an even number of numbers on.
  Panels after(int64_t numbers) const {
    return rounded ? Panels{nullptr, rounded + numbers / kNumbers<Bfloat16Pair>}
                   : Panels{exact + numbers, nullptr};
  }
};

}  // namespace deq::ops
