// Line charts as SVG, without scripts: within a page, whose style has the colours (classes s0 to
// s7), or as a picture of its own.
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
  bool logarithmic_x = false;
};

/// The colours of series, as rules of a style sheet.
inline constexpr const char* kSeriesColours =
    ".s0{--c:#2f6fde}.s1{--c:#d9662b}.s2{--c:#2a9d63}.s3{--c:#b4479b}.s4{--c:#b08a00}"
    ".s5{--c:#1a9ba8}.s6{--c:#c9404a}.s7{--c:#7a6ae0}";

/// A figure with its legend, or "" where no series has a point. Of a long series the means of up to
/// 240 equal parts are drawn.
std::string line_chart(const std::vector<Series>& series, const Axes& axes);

struct Chart {
  Axes axes;
  std::vector<Series> series;
};

/// The charts one below the other as an SVG file, light and dark; those without a point are left
/// out.
std::string picture(const std::vector<Chart>& charts);

/// `text` with &, <, >, " and ' as entities, and a middle dot for what is not UTF-8 or a control
/// character.
std::string html(const std::string& text);

}  // namespace deq
