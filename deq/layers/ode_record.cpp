#include "deq/layers/ode_record.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace deq::ode {

using at::Tensor;

Queue::Queue(const Record& record) {
  samples_.resize(record.t.size());
  std::iota(samples_.begin(), samples_.end(), int64_t(0));
  std::stable_sort(samples_.begin(), samples_.end(),
                   [&](int64_t a, int64_t b) { return record.steps(a) > record.steps(b); });
  for (const int64_t sample : samples_) steps_.push_back(record.steps(sample));
}

int64_t Queue::count(int64_t n) const {
  return std::partition_point(steps_.begin(), steps_.end(), [&](int64_t s) { return s > n; }) -
         steps_.begin();
}

namespace {
constexpr int64_t kSlots = 16;  // at first
}

Checkpoints::Checkpoints(int64_t samples, int64_t width, const at::TensorOptions& options)
    : states_(at::zeros({kSlots, samples, width}, options)) {}

void Checkpoints::see(int64_t sample, int64_t n, const Tensor& y, int64_t r) {
  while (n >= stride_ * states_.size(0)) {
    if (states_.size(0) <= stride_) {  // slots and stride grow in turn
      states_ = at::cat({states_, at::zeros_like(states_)});
    } else {
      const int64_t half = states_.size(0) / 2;
      const Tensor kept = states_.slice(0, 0, states_.size(0), 2).clone();
      states_.narrow(0, 0, half).copy_(kept);
      stride_ *= 2;
    }
  }
  if (n % stride_ != 0) return;
  if (!states_.is_cpu()) {
    states_[n / stride_][sample].copy_(y[r]);
    return;
  }
  const auto bytes = size_t(y.size(1) * y.element_size());
  auto* to = static_cast<char*>(states_.data_ptr()) +
             size_t(n / stride_ * states_.size(1) + sample) * bytes;
  if (bytes > 0) std::memcpy(to, static_cast<const char*>(y.data_ptr()) + size_t(r) * bytes, bytes);
}

Tensor Checkpoints::at_step(int64_t n, const Tensor& samples) const {
  return states_[n / stride_].index_select(0, samples);
}

}  // namespace deq::ode
