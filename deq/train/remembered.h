#pragma once

#include <map>

#include "deq/data/batch.h"
#include "deq/train/optimizer.h"

namespace deq {

/// Where each problem of a pool was left in the epoch before: its next solve starts there. States
/// are kept while they take no more than a bound; those of problems that came when it was reached
/// are not, and these start from zeros, as all do the first time.
class Remembered {
 public:
  explicit Remembered(int64_t limit_mb) : limit_(limit_mb << 20) {}

  /// What the problems of a batch start from, of the shape of `zeros` (B, ..., D).
  at::Tensor start(const Batch& batch, const at::Tensor& zeros) const;
  /// Takes the states z (B, ..., D) that they were left in; not one that is not finite.
  void keep(const Batch& batch, const at::Tensor& z);
  void clear();

  int64_t bytes() const { return bytes_; }
  size_t count() const { return states_.size(); }

  /// By name, for a checkpoint, which holds as many bytes and few more; empty without states.
  NamedTensors state() const;
  /// Throws deq::Error for a tensor that is missing, and for numbers that do not add up.
  void restore(const NamedTensors& state);

 private:
  int64_t limit_, bytes_ = 0;
  std::map<int64_t, at::Tensor> states_;  // by problem, (..., D) on the CPU
};

}  // namespace deq
