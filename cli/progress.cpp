#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace deq::cli {
namespace {

constexpr int kBar = 20;

int columns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// To standard output. Training does not fail because nobody can read it any more: not fmt::print,
/// which throws.
void write(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

Progress::Progress() : terminal_(isatty(STDOUT_FILENO)) {}

void Progress::show(double share, const std::string& text, bool plain_line) {
  if (!terminal_) {
    if (plain_line) write(text + "\n");
    return;
  }
  const int filled = int(std::clamp(share, 0.0, 1.0) * kBar);
  std::string line = fmt::format("[{:=<{}}{: <{}}] {}", "", filled, "", kBar - filled, text);
  line.resize(std::min(line.size(), size_t(std::max(1, columns() - 1))));
  write("\r\033[K" + line);
  open_ = true;
}

void Progress::print(const std::string& line) {
  write((open_ ? "\r\033[K" : "") + line + "\n");
  open_ = false;
}

void Progress::finish() {
  write(open_ ? "\n" : "");
  open_ = false;
}

std::string duration(double seconds) {
  const int64_t s = int64_t(std::max(0.0, seconds) + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string count(double number) {
  if (number < 1e3) return fmt::format("{:.0f}", number);
  if (number < 1e6) return fmt::format("{:.1f}k", number / 1e3);
  return fmt::format("{:.2f}M", number / 1e6);
}

}  // namespace deq::cli
