// Runs the `deq` command as a user would, and catches what it prints.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "tests/base/child.h"

namespace deq::testing {

struct Output {
  int exit_code;
  std::string text;  ///< stdout, or with "2>&1" in the arguments both
};

/// `deq` with `arguments` as a shell's command that ends within the limit; exit code 124 where it
/// had to be ended.
inline std::string limited(const std::string& arguments) {
  return "timeout --foreground -k 10 " + std::to_string(kTimeLimit) + " " DEQ_BINARY " " +
         arguments;
}

/// `arguments` go through the shell.
inline Output run_deq(const std::string& arguments) {
  std::FILE* pipe = popen(limited(arguments).c_str(), "r");
  if (!pipe) throw std::runtime_error("cannot start " DEQ_BINARY);
  Output output{};
  std::array<char, 4096> buffer;
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.text.append(buffer.data(), n);
  }
  const int status = pclose(pipe);
  output.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (output.exit_code == 124)
    ADD_FAILURE() << "deq " << arguments << " took more than " << kTimeLimit << " s";
  return output;
}

/// A run of `deq` that fails: exit code 1, and one line on stderr that says `text`.
inline void expect_one_error_line(const std::string& arguments, const std::string& text) {
  const Output output = run_deq(arguments + " 2>&1 >/dev/null");
  EXPECT_EQ(output.exit_code, 1) << arguments;
  EXPECT_EQ(output.text.rfind("error: ", 0), 0u) << arguments << "\n" << output.text;
  EXPECT_EQ(std::count(output.text.begin(), output.text.end(), '\n'), 1) << output.text;
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, text, output.text);
}

}  // namespace deq::testing
