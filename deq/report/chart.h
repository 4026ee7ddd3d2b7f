// Line charts as SVG, without scripts: within a page, whose style has the colours (classes s0 to
// s7) and dashes (d1 to d3), or as a picture of its own.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace deq {

/// How a line is drawn. Thin ones stand behind what they belong to and have no key.
enum class Stroke { Usual, Thin, Thick };

/// One line of a chart.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< x rising; what is not finite is left out
  std::optional<size_t> colour = {};              ///< that of which series; its own
  Stroke stroke = Stroke::Usual;
};

/// A vertical line at a place that means something.
struct Mark {
  double x = 0;
  std::string label;
};

/// What stands beside the lines of a chart.
struct Axes {
  std::string title, x, y;
  bool logarithmic = false;  ///< y; what is not positive is left out
  bool logarithmic_x = false;
  std::vector<Mark> marks = {};
};

/// The colours of series, and the dashes of those beyond the eighth, as rules of a style sheet.
inline constexpr const char* kSeriesColours =
    ".s0{--c:#2f6fde}.s1{--c:#d9662b}.s2{--c:#2a9d63}.s3{--c:#b4479b}.s4{--c:#b08a00}"
    ".s5{--c:#1a9ba8}.s6{--c:#c9404a}.s7{--c:#7a6ae0}"
    "polyline.d1{stroke-dasharray:7 3}polyline.d2{stroke-dasharray:2 3}"
    "polyline.d3{stroke-dasharray:9 3 2 3}"
    "polyline.thin{stroke-width:1;opacity:.5}polyline.thick{stroke-width:3}"
    ".mark{stroke:#8a8a90;stroke-dasharray:3 3}";

/// What stands below charts of long series.
inline constexpr const char* kAveraged =
    "Of a line of more than 240 points the means of 240 equal parts are drawn.";

/// A figure with its legend, or "" where no series has a point. kAveraged.
std::string line_chart(const std::vector<Series>& series, const Axes& axes);

/// Lines in common axes.
struct Chart {
  Axes axes;
  std::vector<Series> series;
};

/// How every picture begins, so that no other drawing is taken for one and replaced.
inline constexpr const char* kPictureStart = "<svg xmlns='http://www.w3.org/2000/svg' viewBox=";

/// The charts one below the other as an SVG file, light and dark; those without a point are left
/// out.
std::string picture(const std::vector<Chart>& charts);

/// `text` with &, <, >, " and ' as entities, and a middle dot for what is not UTF-8 or a control
/// character.
std::string html(const std::string& text);

}  // namespace deq
