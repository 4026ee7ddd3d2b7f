// The loop over steps: every row with a size of step, an acceptance and an end of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "deq/layers/ode_record.h"
#include "deq/layers/ode_stepper.h"

namespace deq::ode {

class Events;

/// times (T, B) on the host.
struct Times {
  std::vector<double> values;
  int64_t count = 0, samples = 0;
  double at(int64_t i, int64_t sample) const { return values[size_t(i * samples + sample)]; }
};

/// What a solve is given besides the method.
struct Course {
  Times times;
  ops::Allowance allowed;
  int64_t max_steps = 0;
  double max_step = std::numeric_limits<double>::infinity();
  int64_t outputs = 0;       ///< numbers of a state that are returned, its first
  bool keep_record = false;  ///< accepted steps
  bool keep_states = false;  ///< and states of some
  bool extend = false;       ///< the continuous extension of every step is wanted
  Events* events = nullptr;
  /// Called after each attempt with what is accepted, before y is `next`.
  std::function<void(Work& work, const std::vector<char>& accepted)> on_step = {};
};

/// How each sample went, and its outputs.
struct Outcome {
  Outcome(int64_t samples, int64_t slots, int64_t outputs, const at::TensorOptions& options);

  at::Tensor values;  ///< (slots, B, outputs): a slot for each time, and one for an event
  std::vector<Reason> reason;
  std::vector<double> reached, residual;
  std::vector<int64_t> accepted, rejected;
  at::Tensor last;  ///< (B, width), the state at `reached`
  Record record;
  Checkpoints states;
};

/// From y0 (B, width) with k_0 = `slope` where it is defined. Nothing throws for a solution that is
/// none; its later outputs are its last state.
Outcome drive(Stepper& stepper, const Field& f, const at::Tensor& y0, const at::Tensor& slope,
              const Course& course);

}  // namespace deq::ode
