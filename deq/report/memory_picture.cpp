#include "deq/report/memory_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "deq/report/chart.h"

namespace deq {
namespace {

std::optional<int64_t> whole_number(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value)
                                                                  : std::nullopt;
}

/// 0 to 1 for each position: by its number where all are numbers, or by its word among the words.
std::vector<double> shades(const std::vector<std::string>& at) {
  const std::set<std::string> words(at.begin(), at.end());
  const bool numbers = std::all_of(words.begin(), words.end(), whole_number);
  std::vector<double> values;
  for (const std::string& one : at)
    values.push_back(numbers ? double(*whole_number(one))
                             : double(std::distance(words.begin(), words.find(one))));
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double from = *low, range = std::max(1.0, *high - *low);
  for (double& value : values) value = (value - from) / range;
  return values;
}

std::string row(const MemoryPicture::Track& track) {
  std::string out = "<tr><th>" + html(track.name);
  const std::vector<double> shade = shades(track.at);
  for (size_t t = 0; t < track.at.size(); ++t)
    out += fmt::format("<td style='--h:{:.2f}'>{}", shade[t], html(track.at[t]));
  return out + "\n";
}

}  // namespace

std::string draw_memory(const MemoryPicture& picture) {
  if (picture.tracks.empty() || picture.symbols.empty()) return "";
  std::string out = "<div class=wide><table class=memory><tr><th>problem";
  for (const std::string& symbol : picture.symbols) out += "<th>" + html(symbol);
  out += "\n";
  for (const MemoryPicture::Track& track : picture.tracks) out += row(track);
  return out + "</table></div>\n";
}

}  // namespace deq
