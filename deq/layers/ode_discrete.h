// The gradient of the discrete solution: its accepted steps, in reverse or on the tape.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "deq/layers/ode_record.h"
#include "deq/layers/ode_stepper.h"

namespace deq::ode {

/// What backward does with dL/d(values) (slots, B, n).
struct Adjoint {
  virtual ~Adjoint() = default;
  /// dL/dy0 (B, n); gradients of what f captured are the taped field's sums. With gradients off.
  virtual at::Tensor pull(const at::Tensor& grad, TapedField& f) = 0;
};

/// Steps again from the states that were kept, and back through each step's stages.
std::unique_ptr<Adjoint> discrete_adjoint(std::shared_ptr<Stepper> stepper, Record record,
                                          Checkpoints states);

/// The values (slots, B, n) with the tape of all accepted steps; those that are in no step's places
/// are as given.
at::Tensor unrolled_values(const Stepper& stepper, const Field& f, const Record& record,
                           const at::Tensor& y0, const at::Tensor& values);

}  // namespace deq::ode
