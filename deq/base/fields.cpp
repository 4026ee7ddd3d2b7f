#include "deq/base/fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <type_traits>
#include <utility>

#include "deq/base/option_error.h"
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

std::string to_text(int64_t value) { return std::to_string(value); }

std::string to_text(double value) {
  std::string text =
      fmt::format("{}", value);  // the shortest text that reads back to the same double
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace detail

namespace {

std::string to_text(bool value) { return value ? "true" : "false"; }
using detail::index_of;
using detail::to_text;
std::string to_text(const std::string& value) { return value; }
std::string to_text(const std::vector<int64_t>& value) {
  return fmt::format("{}", fmt::join(value, ","));
}

void from_text(const std::string& key, const std::string& text, bool& value) {
  DEQ_CHECK(text == "true" || text == "false", "{} = {}; expected true or false", dashed(key),
            printable(text));
  value = text == "true";
}

template <class T>
bool parse_whole(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

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

void check_range(const std::string& key, double value, const Range& range) {
  const std::string expected = range.describe();
  DEQ_CHECK(range.contains(value), "{} = {}; expected {}", key, value,
            expected.empty() ? "a number" : expected);
}

const char* type_name(const detail::Scalar& value) {
  static constexpr const char* kNames[] = {"bool", "int", "float", "text", "list"};
  return kNames[value.index()];
}

/// What goes wrong in `use` is about the option `key`.
template <class Use>
void about(const std::string& key, const Use& use) {
  try {
    use();
  } catch (const Error& error) {
    throw OptionError(key, error.what());
  }
}

/// Collects every option, those of alternatives that are not selected included.
struct List : detail::Leaf {
  bool only_selected;
  std::vector<OptionInfo> infos;
  std::map<std::string, size_t> places;  // key -> place in infos
  std::string owner;                     // the alternative that is being walked
  std::string heading;

  explicit List(bool only_selected) : only_selected(only_selected) {}

  void add(OptionInfo info) {
    info.owner = owner;
    info.group = heading;
    const auto [place, fresh] = places.emplace(info.key, infos.size());
    if (fresh) {
      infos.push_back(std::move(info));
    } else {
      infos[place->second].also.push_back(std::move(info));
    }
  }
  void scalar(const std::string& key, detail::Scalar value, const char* help,
              const Range& range) override {
    const std::string text = std::visit([](const auto* held) { return to_text(*held); }, value);
    add({key, text, type_name(value), help, range.describe(), {}});
  }
  void enumeration(const std::string& key, size_t& value, const std::vector<std::string>& names,
                   const char* help) override {
    add({key, names[value], "choice", help, "", names});
  }
  void choice(const std::string& key, detail::Alternatives& value, const char* help) override {
    const std::vector<std::string> names = value.names();
    const std::string selected = value.name();
    add({key, selected, "choice", help, "", names});
    walk_held(key, value);
    for (size_t i = 0; i < names.size() && !only_selected; ++i) {
      if (names[i] == selected) continue;
      value.choose(i);
      walk_held(key, value);
    }
  }
  void walk_held(const std::string& key, detail::Alternatives& value) {
    const std::string outer = std::exchange(owner, value.name());
    detail::Walk nested(*this, key + "_");
    value.walk_held(nested);
    owner = outer;
  }
  void group(const char* name) override { heading = name; }
};

struct Assign : detail::Leaf {
  const Assignments& values;
  std::set<std::string> used;

  explicit Assign(const Assignments& values) : values(values) {}

  const std::string* take(const std::string& key) {
    const auto found = values.find(key);
    if (found == values.end()) return nullptr;
    used.insert(key);
    return &found->second;
  }
  void scalar(const std::string& key, detail::Scalar value, const char*,
              const Range& range) override {
    const std::string* text = take(key);
    if (!text) return;
    const auto set = [&]<class T>(T* place) {
      T parsed{};
      from_text(key, *text, parsed);
      if constexpr (std::is_arithmetic_v<T>) check_range(dashed(key), double(parsed), range);
      *place = std::move(parsed);
    };
    about(key, [&] { std::visit(set, value); });
  }
  void enumeration(const std::string& key, size_t& value, const std::vector<std::string>& names,
                   const char*) override {
    const std::string* text = take(key);
    if (text) about(key, [&] { value = index_of(key, *text, names); });
  }
  void choice(const std::string& key, detail::Alternatives& value, const char*) override {
    const std::string* text = take(key);
    if (text) about(key, [&] { value.choose(index_of(key, *text, value.names())); });
    detail::Walk nested(*this, key + "_");
    value.walk_held(nested);
  }
};

/// Checks the ranges of values that were set in code.
struct CheckRanges : detail::Leaf {
  void scalar(const std::string& key, detail::Scalar value, const char*,
              const Range& range) override {
    std::visit(
        [&]<class T>(const T* held) {
          if constexpr (std::is_arithmetic_v<T>) check_range(key, double(*held), range);
        },
        value);
  }
  void enumeration(const std::string&, size_t&, const std::vector<std::string>&,
                   const char*) override {}
  void choice(const std::string& key, detail::Alternatives& value, const char*) override {
    detail::Walk nested(*this, key + ".");
    value.walk_held(nested);
  }
};

}  // namespace

namespace detail {

size_t index_of(const std::string& key, const std::string& name,
                const std::vector<std::string>& known) {
  const auto found = std::find(known.begin(), known.end(), name);
  DEQ_CHECK(found != known.end(), "unknown {} '{}'; known: {}", dashed(key), printable(name),
            join(known, ", "));
  return size_t(found - known.begin());
}

std::vector<OptionInfo> list(const Start& start, bool only_selected) {
  List leaf(only_selected);
  Walk walk(leaf, "");
  start(walk);
  return std::move(leaf.infos);
}

std::vector<std::string> assign(const Start& start, const Assignments& values) {
  Assign leaf(values);
  Walk walk(leaf, "");
  start(walk);
  std::vector<std::string> unknown;
  for (const auto& [key, text] : values) {
    if (!leaf.used.count(key)) unknown.push_back(key);
  }
  return unknown;
}

void check_ranges(const Start& start, const std::string& prefix) {
  CheckRanges leaf;
  Walk walk(leaf, prefix + ".");
  start(walk);
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
    if (owner)
      throw OptionError(key, fmt::format("{} is not an option of {} '{}'", dashed(key),
                                         dashed(owner->key), owner->value));
  }
  const std::string near = nearest(dashed(key), keys);
  throw OptionError(key,
                    fmt::format("unknown option '{}'{}", printable(dashed(key)),
                                near.empty() ? "" : fmt::format("; the nearest is '{}'", near)));
}

}  // namespace detail
}  // namespace deq
