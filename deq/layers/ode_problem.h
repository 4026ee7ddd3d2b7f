// What integrate is given, checked, as rows of numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "deq/layers/ode_driver.h"

namespace deq::ode {

/// A batch of states, their times and tolerances.
struct Problem {
  int64_t B = 0, n = 1, T = 0;
  std::vector<int64_t> shape;  // of a sample
  at::Tensor y0;               // (B, n), with its tape
  at::Tensor clock;            // (T, B) of the type of y0, with its tape
  Times times;
  ops::Allowance allowed;
};

/// Throws deq::Error for what ode.h says.
Problem checked(const OdeFunction& f, const at::Tensor& y0, const OdeTimes& times,
                const OdeOptions& options);

/// A list of flags as a tensor beside `like`.
at::Tensor flags(const std::vector<char>& list, const at::Tensor& like);

}  // namespace deq::ode
