// The adjoint equation lambda' = -(df/dy)^T lambda, solved backwards between the outputs, where
// dL/dy of each is added; gradients of what f captured are the integrals of lambda^T df/dtheta.
#pragma once

#include <memory>

#include "deq/layers/ode_discrete.h"
#include "deq/layers/ode_driver.h"

namespace deq::ode {

/// The continuous extensions of all steps of all samples.
class Path {
 public:
  Path(int64_t samples, int64_t width, int64_t stages, const at::TensorOptions& options);
  /// The accepted steps of the batch.
  void see(const Work& work, const std::vector<char>& accepted);
  /// y of these samples at these times, (b, n).
  at::Tensor at_times(const Stepper& stepper, const std::vector<double>& t,
                      const std::vector<int64_t>& samples) const;

 private:
  struct Step {
    double t, h, scale;
    int64_t place;
  };
  std::vector<std::vector<Step>> steps_;
  int64_t count_ = 0;
  at::Tensor y_, k_;  // (room, n), (S, room, n)
};

/// What the adjoint equation is solved along and with.
struct Continuous {
  OdeMethod method;
  double rel_tol = 0;
  int64_t max_steps = 0;
  double max_step = std::numeric_limits<double>::infinity();
  Record record;
  Times times;
  at::Tensor values;                 ///< (slots, B, n), of the solution
  std::shared_ptr<Path> path;        ///< none: y is solved backwards too
  std::shared_ptr<Stepper> stepper;  ///< of the path
  ops::Allowance allowed;            ///< of y
};

std::unique_ptr<Adjoint> continuous_adjoint(Continuous along);

}  // namespace deq::ode
