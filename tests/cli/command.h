// Runs the `deq` command as a user would, and catches what it prints.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace deq::testing {

struct Output {
  int exit_code;
  std::string text;  ///< stdout, or with "2>&1" in the arguments both
};

/// `command` goes through the shell.
inline Output run_command(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error("cannot start " + command);
  Output output{};
  std::array<char, 4096> buffer;
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.text.append(buffer.data(), n);
  }
  const int status = pclose(pipe);
  output.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return output;
}

/// `arguments` go through the shell.
inline Output run_deq(const std::string& arguments) {
  return run_command(DEQ_BINARY " " + arguments);
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
