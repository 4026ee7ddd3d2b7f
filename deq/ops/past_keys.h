#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace deq::ops {

/// Keys and values of one text's past in the layout of attention's kernels, with room for those of
/// the next positions. At most `length` positions stay; where the oldest has to go it is passed
/// over, and what is left is moved together, or into more room, once in so many positions.
class PastKeys {
 public:
  /// Of H heads, keys and values (D) of a type, float or double.
  PastKeys(int64_t heads, int64_t width, int64_t length, at::ScalarType type);

  /// Of the next position, k and v (D); the one that is now there too far back goes.
  template <class T>
  void append(const T* k, const T* v);
  /// The positions held, (1, M, D) each.
  at::Tensor keys() const;
  at::Tensor values() const;

  /// The positions held stand at begin() .. end() - 1; at end() there is room for one more.
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  /// Head h: (d, n) packed, and (n, d) in panels `panel()` numbers apart.
  template <class T>
  T* head_keys(int64_t h) const {
    return keys_.data_ptr<T>() + h * keys_.size(1);
  }
  template <class T>
  T* head_values(int64_t h) const {
    return values_.data_ptr<T>() + h * values_.size(1);
  }
  int64_t panel() const { return capacity_ * W_; }

 private:
  void make_room();
  template <class T>
  void move(int64_t capacity, int64_t by);

  int64_t d_, panels_, W_, length_;  // panels of a head's values
  int64_t begin_ = 0, end_ = 0, capacity_;
  at::Tensor keys_, values_;  // (H, capacity d), (H, panels capacity W)
};

}  // namespace deq::ops
