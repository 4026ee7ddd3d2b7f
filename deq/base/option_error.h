// An error about the value of one option, for who knows where it was written.
#pragma once

#include <string>
#include <utility>

#include "deq/base/error.h"

namespace deq {

/// What it says is one line, as any Error; `key` says which option it is about.
class OptionError : public Error {
 public:
  OptionError(std::string key, const std::string& message) : Error(message), key(std::move(key)) {}

  std::string key;  ///< as in OptionInfo
};

}  // namespace deq
