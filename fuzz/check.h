// What every fuzz target demands of an error.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "deq/base/error.h"

namespace deq::fuzz {

[[noreturn]] inline void fail(const char* reason, const std::string& detail) {
  std::fprintf(stderr, "%s: %s\n", reason, detail.c_str());
  std::abort();
}

/// Runs `action`; true when it succeeds. Anything but a deq::Error of one line is a finding.
template <class Action>
bool accepted(Action&& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    const std::string message = error.what();
    if (message.find_first_of("\n\r") != std::string::npos) fail("not one line", message);
    if (message.empty() || message.size() > 1000) fail("no readable size", message);
    return false;
  }
}

}  // namespace deq::fuzz
