// One exception type for everything a caller can get wrong, and the macro that throws it.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>
#include <string>

namespace deq {

/// The message is one line: it names the thing, its value and what was expected.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace deq

/// DEQ_CHECK(memory >= 1, "Anderson.memory = {}; expected >= 1", memory): throws deq::Error unless
/// the condition holds. The message is formatted (fmt) only on failure.
#define DEQ_CHECK(condition, ...)                                     \
  do {                                                                \
    if (!(condition)) throw ::deq::Error(::fmt::format(__VA_ARGS__)); \
  } while (false)
