#include "deq/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "deq/base/utf8.h"

namespace deq {
namespace {

constexpr double kWidth = 560, kHeight = 300;  // of the viewBox
constexpr double kLeft = 80, kRight = 12, kTop = 12, kBottom = 40;
constexpr size_t kMostPoints = 240;
constexpr size_t kColours = 8, kDashes = 4;
const std::map<char, const char*> kEntities = {
    {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};

using Points = std::vector<std::pair<double, double>>;

Points drawn(const Points& points, const Axes& axes) {
  Points kept;
  for (const auto& [x, y] : points) {
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    if ((axes.logarithmic && y <= 0) || (axes.logarithmic_x && x <= 0)) continue;
    kept.emplace_back(axes.logarithmic_x ? std::log10(x) : x, axes.logarithmic ? std::log10(y) : y);
  }
  if (kept.size() <= kMostPoints) return kept;
  Points means;
  for (size_t part = 0; part < kMostPoints; ++part) {
    const size_t begin = part * kept.size() / kMostPoints;
    const size_t end = (part + 1) * kept.size() / kMostPoints;
    double x = 0, y = 0;
    for (size_t i = begin; i < end; ++i) x += kept[i].first, y += kept[i].second;
    means.emplace_back(x / double(end - begin), y / double(end - begin));
  }
  return means;
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void widen() {  // one value alone gets room around it, but what is never negative none below zero
    if (high > low) return;
    const double value = low, room = std::max(std::abs(value) * 0.1, 0.5);
    low = value >= 0 ? std::max(value - room, 0.0) : value - room;
    high = value + room;
  }
};

/// Multiples of 1, 2 or 5 times a power of ten, about `count` of them.
std::vector<double> ticks(const Range& range, int count) {
  const double rough = (range.high - range.low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double step = power * (rough / power > 5   ? 10
                               : rough / power > 2 ? 5
                               : rough / power > 1 ? 2
                                                   : 1);
  std::vector<double> at;
  for (double k = std::ceil(range.low / step - 1e-9); k * step <= range.high + 1e-9 * step; ++k)
    at.push_back(k * step);
  return at;
}

/// Of values that are logarithms: powers of ten, with 2 and 5 between them where these are few.
std::vector<double> logarithmic_ticks(const Range& range) {
  const bool few = range.high - range.low < 2;
  const double every = std::max(1.0, std::ceil((range.high - range.low) / 6));
  std::vector<double> at;
  for (double power = std::floor(range.low); power <= range.high; power += every) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double value = power + std::log10(factor);
      const bool within = value >= range.low - 1e-9 && value <= range.high + 1e-9;
      if (within && (factor == 1 || few)) at.push_back(value);
    }
  }
  return at;
}

std::string number(double value) {
  const double size = std::abs(value);
  if (size < 1e-12) return "0";
  if (size >= 1e15) return fmt::format("{:.3g}", value);
  if (size >= 1e12) return fmt::format("{:.3g}T", value / 1e12);
  if (size >= 1e9) return fmt::format("{:.3g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:.3g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  if (size >= 1000) return fmt::format("{:.0f}", value);
  if (size >= 1e-3) return fmt::format("{:.4g}", value);
  const int power = int(std::floor(std::log10(size) + 1e-9));
  return fmt::format("{:.0f}e{}", value / std::pow(10, power), power);
}

/// Its colour, how its line is dashed from the ninth on, and how thick it is.
std::string classes(const Series& series, size_t number) {
  const size_t colour = series.colour.value_or(number), dash = colour / kColours % kDashes;
  return fmt::format("s{}{}{}", colour % kColours, dash > 0 ? fmt::format(" d{}", dash) : "",
                     series.stroke == Stroke::Thin    ? " thin"
                     : series.stroke == Stroke::Thick ? " thick"
                                                      : "");
}

class Canvas {
 public:
  Canvas(const Range& x, const Range& y) : x_(x), y_(y) {}

  double across(double x) const {
    return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }
  double down(double y) const {
    return kHeight - kBottom - (y - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }

  std::string grid(const Axes& axes) const {
    std::string svg;
    for (const double y : axes.logarithmic ? logarithmic_ticks(y_) : ticks(y_, 5)) {
      const std::string label = axes.logarithmic ? number(std::pow(10, y)) : number(y);
      svg += fmt::format(
          "<line class='grid' x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}'/>"
          "<text x='{}' y='{:.1f}' text-anchor='end'>{}</text>",
          kLeft, kWidth - kRight, down(y), down(y), kLeft - 6, down(y) + 4, label);
    }
    for (const double x : axes.logarithmic_x ? logarithmic_ticks(x_) : ticks(x_, 6)) {
      const bool at_the_edge = across(x) > kWidth - 2 * kRight;
      svg += fmt::format("<text x='{:.1f}' y='{}' text-anchor='{}'>{}</text>", across(x),
                         kHeight - kBottom + 18, at_the_edge ? "end" : "middle",
                         number(axes.logarithmic_x ? std::pow(10, x) : x));
    }
    return svg + fmt::format("<text x='{}' y='{}' text-anchor='end'>{}</text>", kWidth - kRight,
                             kHeight - 6, html(axes.x));
  }

  std::string line(const Points& points, const std::string& classes) const {
    const bool in_place =
        std::count(points.begin(), points.end(), points[0]) == int64_t(points.size());
    if (in_place)
      return fmt::format("<circle class='{}' cx='{:.1f}' cy='{:.1f}' r='3'/>", classes,
                         across(points[0].first), down(points[0].second));
    std::string path;
    for (const auto& [x, y] : points) path += fmt::format("{:.1f},{:.1f} ", across(x), down(y));
    return fmt::format("<polyline class='{}' points='{}'/>", classes, path);
  }

  std::string mark(double x, const std::string& label) const {
    const bool far = across(x) > kWidth / 2;
    return fmt::format(
        "<line class='mark' x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2}'/>"
        "<text x='{3:.1f}' y='{4}' text-anchor='{5}'>{6}</text>",
        across(x), kTop, kHeight - kBottom, across(x) + (far ? -4 : 4), kHeight / 2,
        far ? "end" : "start", html(label));
  }

 private:
  Range x_, y_;
};

/// Grid and lines, or "" where no series has a point.
std::string plot(const std::vector<Series>& series, const Axes& axes) {
  Range x, y;
  std::vector<Points> lines;
  for (const Series& one : series) {
    lines.push_back(drawn(one.points, axes));
    for (const auto& [px, py] : lines.back()) x.add(px), y.add(py);
  }
  if (!(x.low <= x.high)) return "";
  Points marks;
  for (const Mark& mark : axes.marks) {
    const double at = axes.logarithmic_x ? std::log10(mark.x) : mark.x;
    marks.emplace_back(at, 0);
    if (std::isfinite(at)) x.add(at);
  }
  x.widen();
  y.widen();
  const Canvas canvas(x, y);
  std::string svg = canvas.grid(axes);
  for (size_t i = 0; i < marks.size(); ++i) {
    if (std::isfinite(marks[i].first)) svg += canvas.mark(marks[i].first, axes.marks[i].label);
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!lines[i].empty()) svg += canvas.line(lines[i], classes(series[i], i));
  }
  return svg;
}

bool has_key(const Series& series, const Axes& axes) {
  return series.stroke != Stroke::Thin && !drawn(series.points, axes).empty();
}

}  // namespace

std::string html(const std::string& text) {
  std::string escaped;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    const char c = text[at];
    const bool control = (c >= 0 && c < ' ' && c != '\n' && c != '\t') || c == '\x7f';
    if (length == 0 || control) {
      escaped += "\u00b7";
    } else if (const auto entity = kEntities.find(c); entity != kEntities.end()) {
      escaped += entity->second;
    } else {
      escaped.append(text, at, length);
    }
    at += std::max<size_t>(length, 1);
  }
  return escaped;
}

std::string line_chart(const std::vector<Series>& series, const Axes& axes) {
  const std::string svg = plot(series, axes);
  if (svg.empty()) return "";
  std::string legend;
  for (size_t i = 0; i < series.size(); ++i) {
    if (has_key(series[i], axes))
      legend += fmt::format("<span class='key {}'>{}</span> ", classes(series[i], i),
                            html(series[i].name));
  }
  return fmt::format(
      "<figure><figcaption><b>{}</b> {}</figcaption>\n<svg viewBox='0 0 {} {}' role=img "
      "aria-label='{}'>{}</svg>\n<div class=legend>{}</div></figure>\n",
      html(axes.title), html(axes.y), kWidth, kHeight, html(axes.title), svg, legend);
}

std::string picture(const std::vector<Chart>& charts) {
  constexpr double kLine = 20;
  std::string body;
  double top = 8;
  for (const Chart& chart : charts) {
    const std::string svg = plot(chart.series, chart.axes);
    if (svg.empty()) continue;
    body += fmt::format("<text x='{0}' y='{1}'><tspan class='title'>{2}</tspan> {3}</text>\n",
                        kLeft, top + kLine, html(chart.axes.title), html(chart.axes.y));
    top += 1.5 * kLine;
    body += fmt::format("<g transform='translate(0 {})'>{}</g>\n", top, svg);
    top += kHeight;
    for (size_t i = 0; i < chart.series.size(); ++i) {
      if (!has_key(chart.series[i], chart.axes)) continue;
      top += kLine;
      body +=
          fmt::format("<polyline class='{}' points='{},{} {},{}'/><text x='{}' y='{}'>{}</text>\n",
                      classes(chart.series[i], i), kLeft, top - 4, kLeft + 18, top - 4, kLeft + 24,
                      top, html(chart.series[i].name));
    }
    top += kLine;
  }
  return fmt::format(
      "{4}'0 0 {0} {1}' width='{0}' height='{1}'>\n"
      "<style>.paper{{fill:#fff}}text{{fill:#55555a;font:13px system-ui,sans-serif}}"
      ".title{{font-weight:bold}}.grid{{stroke:#d8d8dc}}"
      "polyline{{fill:none;stroke-width:2;stroke:var(--c)}}circle{{fill:var(--c)}}{2}"
      "@media(prefers-color-scheme:dark){{.paper{{fill:#161618}}text{{fill:#b8b8be}}"
      ".grid{{stroke:#3a3a3e}}}}</style>\n<rect class='paper' width='100%' height='100%'/>\n"
      "{3}</svg>\n",
      kWidth, top, kSeriesColours, body, kPictureStart);
}

}  // namespace deq
