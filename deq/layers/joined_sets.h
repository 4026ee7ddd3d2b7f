#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

namespace deq {

/// The numbers below n in sets that grow together (union-find).
class JoinedSets {
 public:
  explicit JoinedSets(int64_t n) : above_(size_t(n)) { std::iota(above_.begin(), above_.end(), 0); }
  /// One number of the set that i is in, the same for all of it.
  int64_t of(int64_t i) {
    while (above_[size_t(i)] != i) i = above_[size_t(i)] = above_[size_t(above_[size_t(i)])];
    return i;
  }
  void join(int64_t i, int64_t j) { above_[size_t(of(i))] = of(j); }

 private:
  std::vector<int64_t> above_;
};

}  // namespace deq
