#include "deq/report/problem_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "deq/report/chart.h"

namespace deq {
namespace {

/// Half decades below 1, in base 36: '0' is 1 or more, '6' is 1e-3; '-' is not known.
char level_of(double residual) {
  if (std::isnan(residual)) return '-';
  const double halves = residual > 0 ? std::round(-2 * std::log10(residual)) : 35;
  const int level = int(std::clamp(halves, 0.0, 35.0));
  return char(level < 10 ? '0' + level : 'a' + level - 10);
}

nlohmann::json data_of(const ProblemPicture& picture) {
  nlohmann::json data{{"rows", picture.rows},       {"columns", picture.columns},
                      {"symbols", picture.symbols}, {"problem", picture.problem},
                      {"wanted", picture.wanted},   {"frames", nlohmann::json::array()}};
  for (const ProblemPicture::Frame& frame : picture.frames) {
    std::string levels;
    for (const double residual : frame.residuals) levels += level_of(residual);
    data["frames"].push_back({{"steps", frame.steps},
                              {"residual", fmt::format("{:.1e}", frame.residual)},
                              {"answer", frame.answer},
                              {"levels", levels}});
  }
  return data;
}

/// JSON that no markup can end: < is escaped, and so is all that is not ASCII.
std::string within_page(const nlohmann::json& data) {
  std::string text = data.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  for (size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at))
    text.replace(at, 1, "\\u003c");
  return text;
}

constexpr const char* kStyle =
    ".problem{margin:1.2rem 0}.boards{display:flex;flex-wrap:wrap;gap:1rem}"
    ".boards canvas{max-width:100%;border:1px solid var(--faint)}"
    ".problem input{width:min(100%,420px);vertical-align:middle}"
    ".problem output{font-variant-numeric:tabular-nums;margin-left:.6rem}"
    ".problem .tell{min-height:1.5em;margin:.2rem 0}";

// One figure: two canvases, of answers and of residuals. Colours say right and wrong; the symbols
// say so too where squares are large enough to hold them.
constexpr const char* kScript = R"script(
for (const figure of document.querySelectorAll(".problem")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const [answers, residuals] = figure.querySelectorAll("canvas");
  const slider = figure.querySelector("input"), said = figure.querySelector("output");
  const tell = figure.querySelector(".tell");
  const count = data.problem.length;
  const columns = data.rows > 1 ? data.columns
                                    : Math.min(count, count > 512 ? 64 : 32);
  const rows = Math.ceil(count / columns);
  const size = Math.max(5, Math.min(28, Math.floor(540 / columns)));
  const plain = Math.min(...data.wanted.filter(id => id >= 0));
  const symbol = id => id < 0 ? "" : data.symbols[id];
  const possible = new Set(data.wanted.map(symbol));
  const level = (frame, i) => parseInt(frame.levels[i], 36);

  const scale = window.devicePixelRatio || 1;
  const start = canvas => {
    canvas.width = columns * size * scale;
    canvas.height = rows * size * scale;
    canvas.style.width = columns * size + "px";
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    return pen;
  };
  const left = start(answers), right = start(residuals);
  const place = i => [i % columns * size, Math.floor(i / columns) * size];
  const write = (pen, text, x, y, height, colour) => {
    pen.fillStyle = colour;
    pen.font = height + "px system-ui,sans-serif";
    pen.fillText(text, x, y, size - 1);
  };

  const draw = () => {
    const frame = data.frames[slider.value];
    const ink = getComputedStyle(document.body).color;
    let wrong = 0;
    left.clearRect(0, 0, columns * size, rows * size);
    right.clearRect(0, 0, columns * size, rows * size);
    for (let i = 0; i < count; ++i) {
      const [x, y] = place(i), wanted = data.wanted[i], answer = frame.answer[i];
      const shown = wanted < 0 ? symbol(data.problem[i]) : symbol(answer);
      const isWrong = wanted >= 0 && answer !== wanted;
      wrong += isWrong;
      if (wanted < 0 && shown === "#") left.fillStyle = "#55555a";
      else if (wanted < 0) left.fillStyle = "rgba(128,128,136,.15)";
      else left.fillStyle = (isWrong ? "rgba(201,64,74," : "rgba(42,157,99,") +
                            (answer === plain ? ".3)" : ".75)");
      left.fillRect(x, y, size - 1, size - 1);
      const given = symbol(data.problem[i]);
      const more = wanted >= 0 && given !== shown && given !== symbol(plain);
      const alone = more && size < 18 && !possible.has(given);
      const large = alone ? given : shown;
      if (size >= 12 && shown !== "#") write(left, large, x + size / 2, y + size / 2, size * .55, ink);
      if (size >= 18 && more) write(left, given, x + size * .2, y + size * .22, size * .32, ink);
      if (size < 12 && alone) {
        left.fillStyle = ink;
        left.fillRect(x + size / 3, y + size / 3, size / 3, size / 3);
      }
      const found = level(frame, i);
      right.fillStyle = isNaN(found) ? "rgba(128,128,136,.15)"
                                     : "hsl(" + 220 * Math.min(1, found / 12) + " 80% 50%)";
      right.fillRect(x, y, size - 1, size - 1);
    }
    said.textContent = "after " + frame.steps + " steps: " +
        (wrong ? wrong + " wrong" : "right") + ", residual " + frame.residual;
  };
  const show = event => {
    const box = event.target.getBoundingClientRect(), frame = data.frames[slider.value];
    const column = Math.floor((event.clientX - box.left) / box.width * columns);
    const i = Math.floor((event.clientY - box.top) / box.height * rows) * columns + column;
    if (!(i >= 0 && i < count)) return;
    const found = level(frame, i);
    tell.textContent = "row " + (Math.floor(i / data.columns) + 1) + ", column " +
        (i % data.columns + 1) + ": given " + symbol(data.problem[i]) +
        (data.wanted[i] < 0 ? ", not scored" : ", answer " + symbol(frame.answer[i]) +
                                               ", right is " + symbol(data.wanted[i])) +
        (isNaN(found) ? "" : ", residual about " + (10 ** (-found / 2)).toExponential(0));
  };
  for (const canvas of [answers, residuals]) canvas.addEventListener("mousemove", show);
  slider.addEventListener("input", draw);
  draw();
}
)script";

}  // namespace

std::string draw_problem(const ProblemPicture& picture) {
  if (picture.frames.empty()) return "";
  const size_t last = picture.frames.size() - 1;
  return fmt::format(
      "<figure class=problem><figcaption>{0}</figcaption>\n<div class=boards>"
      "<canvas role=img aria-label='answers'></canvas>"
      "<canvas role=img aria-label='residuals'></canvas></div>\n"
      "<label>steps <input type=range min=0 max={1} value={1}></label><output></output>\n"
      "<p class='note tell'></p>\n<script type='application/json'>{2}</script></figure>\n",
      html(picture.title), last, within_page(data_of(picture)));
}

std::string picture_script() {
  return fmt::format(
      "<noscript><p class=note>The pictures are drawn by a script of this page.</p></noscript>\n"
      "<style>{}</style>\n<script>{}</script>\n",
      kStyle, kScript);
}

}  // namespace deq
