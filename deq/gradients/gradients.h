// The list of gradient modes. To add one: its file, and its name in this variant.
#pragma once

#include <variant>

#include "deq/gradients/implicit.h"
#include "deq/gradients/phantom.h"
#include "deq/gradients/unrolled.h"

namespace deq {

using Gradient = std::variant<Implicit, Phantom, OneStep, Unrolled, Checkpointed>;

}  // namespace deq
