// How the kernels see memory.
#pragma once

#include <cstdint>

namespace deq::ops {

/// A matrix whose entry (i, k) is data[i * row + k * col].
template <class T>
struct Strided {
  const T* data = nullptr;
  int64_t row = 0, col = 1;

  Strided down(int64_t rows) const { return {data + rows * row, row, col}; }
  Strided right(int64_t cols) const { return {data + cols * col, row, col}; }
  Strided transposed() const { return {data, col, row}; }
};

}  // namespace deq::ops
