#include "deq/ops/past_keys.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "deq/base/error.h"
#include "deq/ops/packed.h"

namespace deq::ops {

using at::Tensor;

PastKeys::PastKeys(int64_t heads, int64_t width, int64_t length, at::ScalarType type)
    : d_(width / heads), length_(length) {
  DEQ_CHECK(type == at::kFloat || type == at::kDouble, "PastKeys: {}; expected Float or Double",
            c10::toString(type));
  W_ = type == at::kFloat ? panel_width<float>() : panel_width<double>();
  panels_ = (d_ + W_ - 1) / W_;
  capacity_ = W_;
  keys_ = at::zeros({heads, capacity_ * d_}, type);
  values_ = at::zeros({heads, panels_ * capacity_ * W_}, type);
}

template <class T>
void PastKeys::append(const T* k, const T* v) {
  if (length_ == 0) return;
  begin_ += end_ - begin_ == length_;
  for (int64_t h = 0; h < keys_.size(0); ++h, k += d_, v += d_) {
    T* key = head_keys<T>(h) + end_ / W_ * d_ * W_ + end_ % W_;
    T* value = head_values<T>(h) + end_ * W_;
    for (int64_t c = 0; c < d_; ++c) key[c * W_] = k[c];
    for (int64_t c = 0; c < d_; ++c) value[c / W_ * panel() + c % W_] = v[c];
  }
  if (++end_ == capacity_) make_room();
}
template void PastKeys::append(const float*, const float*);
template void PastKeys::append(const double*, const double*);

/// A quarter of the room and more is won, or the room doubled, so that each position is moved a few
/// times at most.
void PastKeys::make_room() {
  const int64_t by = begin_ / W_ * W_;
  const bool together = by >= std::max(W_, capacity_ / 4);
  const int64_t capacity = together ? capacity_ : 2 * capacity_;
  keys_.scalar_type() == at::kFloat ? move<float>(capacity, by) : move<double>(capacity, by);
}

/// Whole panels of keys, and as many rows of values, so that nothing is laid out anew.
template <class T>
void PastKeys::move(int64_t capacity, int64_t by) {
  const bool same = capacity == capacity_;
  const int64_t H = keys_.size(0), rows = end_ - by;
  const Tensor keys = same ? keys_ : at::zeros({H, capacity * d_}, keys_.options());
  const Tensor values = same ? values_ : at::zeros({H, panels_ * capacity * W_}, values_.options());
  const auto copy = [](const T* from, int64_t numbers, T* to) {
    std::memmove(to, from, size_t(numbers) * sizeof(T));
  };
  for (int64_t h = 0; h < H; ++h) {
    copy(head_keys<T>(h) + by * d_, (capacity_ - by) * d_, keys.data_ptr<T>() + h * capacity * d_);
    for (int64_t p = 0; p < panels_; ++p) {
      copy(head_values<T>(h) + p * panel() + by * W_, rows * W_,
           values.data_ptr<T>() + (h * panels_ + p) * capacity * W_);
    }
  }
  keys_ = keys;
  values_ = values;
  capacity_ = capacity;
  begin_ -= by;
  end_ -= by;
}

Tensor PastKeys::keys() const {
  const int64_t H = keys_.size(0);
  return keys_.view({H, capacity_ / W_, d_, W_})
      .permute({1, 3, 0, 2})  // (., W, H, d)
      .reshape({1, capacity_, H * d_})
      .narrow(1, begin_, end_ - begin_)
      .clone();
}

Tensor PastKeys::values() const {
  const int64_t H = values_.size(0);
  return values_.view({H, panels_, capacity_, W_})
      .permute({2, 0, 1, 3})  // (., H, panels, W)
      .reshape({capacity_, H, panels_ * W_})
      .narrow(2, 0, d_)
      .reshape({1, capacity_, H * d_})
      .narrow(1, begin_, end_ - begin_)
      .clone();
}

}  // namespace deq::ops
