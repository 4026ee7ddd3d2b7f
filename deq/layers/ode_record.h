// What a solve leaves behind for its gradient: the accepted steps, and states at some of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace deq::ode {

/// A state that was asked for: y(t + theta h) of a sample's step, or its start (step -1).
struct Place {
  int64_t slot = 0, step = -1;
  double theta = 1;
};

/// The accepted steps of every sample, and where in them its outputs lie, in the order of time.
struct Record {
  std::vector<std::vector<double>> t, h;
  std::vector<std::vector<Place>> places;

  explicit Record(int64_t samples)
      : t(size_t(samples)), h(size_t(samples)), places(size_t(samples)) {}
  int64_t steps(int64_t sample) const { return int64_t(t[size_t(sample)].size()); }
};

/// Samples by falling number of steps, so that those with a step n are the first ones.
class Queue {
 public:
  explicit Queue(const Record& record);
  const std::vector<int64_t>& samples() const { return samples_; }
  int64_t longest() const { return samples_.empty() ? 0 : steps_.front(); }
  /// How many samples have more than n steps.
  int64_t count(int64_t n) const;

 private:
  std::vector<int64_t> samples_, steps_;
};

/// The states at every stride-th step: about the square root of all of them.
class Checkpoints {
 public:
  Checkpoints() = default;
  Checkpoints(int64_t samples, int64_t width, const at::TensorOptions& options);
  /// Row r of y (R, width) is the state before step n of a sample.
  void see(int64_t sample, int64_t n, const at::Tensor& y, int64_t r);
  int64_t stride() const { return stride_; }
  /// The states of these samples before step n, a multiple of the stride.
  at::Tensor at_step(int64_t n, const at::Tensor& samples) const;

 private:
  int64_t stride_ = 1;
  at::Tensor states_;  // (slots, B, width)
};

}  // namespace deq::ode
