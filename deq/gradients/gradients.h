// The list of gradient modes. To add one: its file, and its name in this variant.
#pragma once

#include <variant>

#include "deq/gradients/implicit.h"
#include "deq/gradients/phantom.h"
#include "deq/gradients/unrolled.h"

namespace deq {

using Gradient = std::variant<Implicit, Phantom, OneStep, Unrolled, Checkpointed>;

/// Whether the mode is an explicit network of a fixed depth, which never calls the forward solver.
inline bool is_explicit(const Gradient& gradient) {
  return std::holds_alternative<Unrolled>(gradient) ||
         std::holds_alternative<Checkpointed>(gradient);
}

}  // namespace deq
