#pragma once

#include "deq/halting/halting.h"

namespace deq {

/// Solves end by their stop rule alone.
struct NoHalting {
  static constexpr const char* name = "none";
  static void fields(auto&, auto&&) {}
};

}  // namespace deq
