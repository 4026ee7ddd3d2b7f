#include "deq/base/fields.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "deq/base/option_error.h"
#include "deq/base/printable.h"
#include "deq/base/scalar_text.h"

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

namespace {

using detail::index_of;

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
    add({key, detail::text_of(value), detail::type_name(value), help, range.describe(), {}});
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
    if (text) about(key, [&] { detail::read_text(key, *text, range, value); });
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
    detail::check_range(key, value, range);
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
