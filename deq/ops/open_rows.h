// Which positions of each sample an evaluation works on, where what has converged is left out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "deq/base/tensor_pool.h"

namespace deq::ops {

/// Positions begin(b) .. end(b) - 1 of sample b.
class OpenRows {
 public:
  /// All of them.
  OpenRows(int64_t batch, int64_t positions)
      : spans_(size_t(batch), std::pair{int64_t(0), positions}) {}

  /// Without the first, or the last, done[b] positions of sample b; empty: all.
  static OpenRows without_first(int64_t batch, int64_t positions,
                                const std::vector<int64_t>& done) {
    OpenRows open(batch, positions);
    for (size_t b = 0; b < done.size(); ++b) open.spans_[b].first = done[b];
    return open;
  }
  static OpenRows without_last(int64_t batch, int64_t positions, const std::vector<int64_t>& done) {
    OpenRows open(batch, positions);
    for (size_t b = 0; b < done.size(); ++b) open.spans_[b].second -= done[b];
    return open;
  }

  int64_t batch() const { return int64_t(spans_.size()); }
  int64_t begin(int64_t b) const { return spans_[size_t(b)].first; }
  int64_t end(int64_t b) const { return spans_[size_t(b)].second; }
  bool none(int64_t b) const { return begin(b) >= end(b); }
  int64_t count() const {
    int64_t sum = 0;
    for (const auto& span : spans_) sum += span.second - span.first;
    return sum;
  }

 private:
  std::vector<std::pair<int64_t, int64_t>> spans_;
};

/// A tensor like `t` (B, N, D), contiguous, for the open rows of each sample; the others are those
/// of `t`.
template <class T>
at::Tensor with_closed_rows(const at::Tensor& t, const OpenRows& open, TensorPool& pool) {
  const int64_t N = t.size(1), D = t.size(2);
  const at::Tensor out = pool.empty_like(t);
  for (int64_t b = 0; b < open.batch(); ++b) {
    const T* from = t.data_ptr<T>() + b * N * D;
    T* to = out.data_ptr<T>() + b * N * D;
    std::copy_n(from, open.begin(b) * D, to);
    std::copy(from + open.end(b) * D, from + N * D, to + open.end(b) * D);
  }
  return out;
}

}  // namespace deq::ops
