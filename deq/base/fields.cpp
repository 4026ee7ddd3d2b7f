#include "deq/base/fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "deq/base/printable.h"

namespace deq {

bool Range::contains(double value) const {
  const bool above_low = low_open ? value > low : value >= low;
  const bool below_high = high_open ? value < high : value <= high;
  return above_low && below_high;  // false for NaN
}

std::string Range::describe() const {
  const bool bounded_low = std::isfinite(low), bounded_high = std::isfinite(high);
  if (bounded_low && bounded_high) {
    return fmt::format("in {}{}, {}{}", low_open ? '(' : '[', low, high, high_open ? ')' : ']');
  }
  if (bounded_low) return fmt::format("{} {}", low_open ? ">" : ">=", low);
  if (bounded_high) return fmt::format("{} {}", high_open ? "<" : "<=", high);
  return "";
}

std::string dashed(std::string_view key) {
  std::string name(key);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string underscored(std::string_view name) {
  std::string key(name);
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

std::string help_of(const OptionInfo& info, bool with_default) {
  const auto text = [&](const OptionInfo& one) {
    std::string help = one.help;
    if (!one.choices.empty()) help += " {" + join(one.choices, ", ") + "}";
    if (!one.range.empty()) help += " (" + one.range + ")";
    if (with_default && !one.value.empty()) help += " [" + one.value + "]";
    return help;
  };
  std::vector<std::pair<std::string, std::string>> lines = {{info.owner, text(info)}};
  for (const OptionInfo& other : info.also) {
    const auto same = std::find_if(lines.begin(), lines.end(),
                                   [&](const auto& line) { return line.second == text(other); });
    if (same == lines.end()) {
      lines.emplace_back(other.owner, text(other));
    } else {
      same->first += ", " + other.owner;
    }
  }
  if (lines.size() == 1) return lines[0].second;
  std::vector<std::string> named;
  for (const auto& [owner, help] : lines) named.push_back(owner + ": " + help);
  return join(named, "\n");
}

namespace {

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t least = std::max<size_t>(3, name.size() / 2 + 1);
  if (name.size() > 100) return best;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

namespace detail {

void ListLeaf::add(OptionInfo info) {
  info.owner = owner;
  const auto [place, fresh] = places.emplace(info.key, infos.size());
  if (fresh) {
    infos.push_back(std::move(info));
  } else {
    infos[place->second].also.push_back(std::move(info));
  }
}

std::string to_text(bool value) { return value ? "true" : "false"; }
std::string to_text(int64_t value) { return std::to_string(value); }
std::string to_text(double value) {
  std::string text =
      fmt::format("{}", value);  // the shortest text that reads back to the same double
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}
std::string to_text(const std::string& value) { return value; }
std::string to_text(const std::vector<int64_t>& value) {
  return fmt::format("{}", fmt::join(value, ","));
}

void from_text(const std::string& key, const std::string& text, bool& value) {
  DEQ_CHECK(text == "true" || text == "false", "{} = {}; expected true or false", dashed(key),
            printable(text));
  value = text == "true";
}

namespace {

template <class T>
bool parse_whole(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

}  // namespace

void from_text(const std::string& key, const std::string& text, int64_t& value) {
  DEQ_CHECK(parse_whole(text, value), "{} = {}; expected a whole number", dashed(key),
            printable(text));
}

void from_text(const std::string& key, const std::string& text, double& value) {
  DEQ_CHECK(parse_whole(text, value) && std::isfinite(value), "{} = {}; expected a number",
            dashed(key), printable(text));
}

void from_text(const std::string&, const std::string& text, std::string& value) { value = text; }

void from_text(const std::string& key, const std::string& text, std::vector<int64_t>& value) {
  const bool bracketed = text.size() >= 2 && text.front() == '[' && text.back() == ']';
  const std::string items = bracketed ? text.substr(1, text.size() - 2) : text;
  value.clear();
  for (size_t begin = 0; begin < items.size();) {
    const size_t end = std::min(items.find(',', begin), items.size());
    int64_t item = 0;
    DEQ_CHECK(parse_whole(items.substr(begin, end - begin), item),
              "{} = {}; expected whole numbers separated by commas", dashed(key), printable(text));
    value.push_back(item);
    begin = end + 1;
  }
}

size_t index_of(const std::string& key, const std::string& name,
                const std::vector<std::string>& known) {
  const auto found = std::find(known.begin(), known.end(), name);
  DEQ_CHECK(found != known.end(), "unknown {} '{}'; known: {}", dashed(key), printable(name),
            join(known, ", "));
  return size_t(found - known.begin());
}

void check_range(const std::string& key, double value, const Range& range) {
  const std::string expected = range.describe();
  DEQ_CHECK(range.contains(value), "{} = {}; expected {}", key, value,
            expected.empty() ? "a number" : expected);
}

void reject_unknown(const std::string& key, const std::vector<OptionInfo>& known,
                    const std::vector<OptionInfo>& in_force) {
  std::vector<std::string> keys;
  for (const OptionInfo& info : known) {
    keys.push_back(dashed(info.key));
    if (info.key != key) continue;
    // Known, but of an alternative that is not selected: find the choice whose prefix it carries.
    const OptionInfo* owner = nullptr;
    for (const OptionInfo& choice : in_force) {
      const bool prefixes = key.rfind(choice.key + "_", 0) == 0 && choice.type == "choice";
      if (prefixes && (!owner || choice.key.size() > owner->key.size())) owner = &choice;
    }
    DEQ_CHECK(!owner, "{} is not an option of {} '{}'", dashed(key), dashed(owner->key),
              owner->value);
  }
  const std::string near = nearest(dashed(key), keys);
  throw Error(fmt::format("unknown option '{}'{}", printable(dashed(key)),
                          near.empty() ? "" : fmt::format("; the nearest is '{}'", near)));
}

}  // namespace detail
}  // namespace deq
