// How large a step is.
#pragma once

#include <cstdint>

namespace deq::ode {

/// The steps of one row, by the errors of those before: a proportional-integral controller
/// (Gustafsson 1991) with the exponents 0.7 / q and 0.4 / q, q the order of the estimate.
class Control {
 public:
  /// The factor for the step after one of this error, which is accepted where it is at most 1. Not
  /// finite: the step cannot be made.
  double factor(double error, int error_order);

 private:
  double before_ = 1;
  bool rejected_ = false;
};

/// The first step (Hairer, Norsett, Wanner I, II.4), from the sizes of y, of f and of the change of
/// f over the trial step, in units of what is allowed.
double trial_step(double size_y, double size_f, double span);
double first_step(double trial, double size_f, double change_of_f, int error_order, double span);

/// The least step that t can tell apart.
double least_step(double t, double end);

}  // namespace deq::ode
