#pragma once

#include "deq/train/optimizer.h"

namespace deq {

/// An exponential moving average of weights: after step t
///
///     a <- r a + (1 - r) w,   r = min(rate, (1 + t) / (10 + t))
///
/// so that the weights of the beginning are soon forgotten.
class Average {
 public:
  /// Of these weights, which are shared, not copied; rate 0: none is kept.
  Average(NamedTensors weights, double rate);

  bool kept() const { return rate_ > 0; }
  void step();
  /// The average; the weights themselves where none is kept.
  const NamedTensors& values() const { return kept() ? average_ : weights_; }
  /// Exchanges the values of weights and average: twice is none.
  void swap();

  NamedTensors state() const;
  /// Throws deq::Error for a tensor that is missing or does not fit.
  void restore(const NamedTensors& state);

 private:
  NamedTensors weights_, average_;
  double rate_;
  int64_t steps_ = 0;
};

}  // namespace deq
