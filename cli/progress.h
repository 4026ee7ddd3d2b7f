// A line that shows how far something is: rewritten in place on a terminal, plain lines elsewhere.
#pragma once

#include <cstdint>
#include <string>

namespace deq::cli {

class Progress {
 public:
  Progress();
  ~Progress() { finish(); }

  /// `share` in [0, 1]. On a terminal a bar before `text`; elsewhere a line when `plain_line` is
  /// set.
  void show(double share, const std::string& text, bool plain_line);
  /// A line of its own, above the bar.
  void print(const std::string& line);
  void finish();

 private:
  bool terminal_;
  bool open_ = false;  // the cursor stands behind a bar
};

/// "42s", "3:20", "1:02:05"
std::string duration(double seconds);
/// "950", "12.3k", "1.20M"
std::string count(double number);

}  // namespace deq::cli
