// Line charts as SVG, without scripts: colours come from the page's style (classes s0 to s7).
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace deq {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< x rising; what is not finite is left out
};

struct Axes {
  std::string title, x, y;
  bool logarithmic = false;  ///< y; what is not positive is left out
};

/// A figure with its legend, or "" where no series has a point. Of a long series the means of up to
/// 240 equal parts are drawn.
std::string line_chart(const std::vector<Series>& series, const Axes& axes);

/// `text` with &, <, >, " and ' as entities, and a middle dot for what is not UTF-8 or a control
/// character.
std::string html(const std::string& text);

}  // namespace deq
