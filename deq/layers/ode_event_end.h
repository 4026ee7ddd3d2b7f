// Where samples end by an event: the time and the state, with their gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "deq/layers/ode_events.h"
#include "deq/layers/ode_problem.h"

namespace deq::ode {

/// dt* = -dg / (g_t + g_y f), dg at fixed time, and dy* = dy + f dt*.
struct EventEnd {
  at::Tensor time;           ///< (B); of samples without an event, where they ended
  at::Tensor y;              ///< (B, n)
  std::vector<char> grazes;  ///< samples whose g only touches zero: no gradient
};

/// `state` (B, n) at the found times, with its tape.
EventEnd end_of_events(const Problem& p, const Events& events, const Field& f, double grazing,
                       const at::Tensor& state, const Outcome& outcome);

}  // namespace deq::ode
