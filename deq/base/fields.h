// Options are aggregates; each lists its fields once, and everything else is derived from that
// list: flags, help, configuration files, checkpoint metadata, range checks.
//
//   struct StopRule {
//     int64_t max_steps = 40;
//     double rel_tol = 1e-3;
//     static void fields(auto& self, auto&& field) {
//       field("max_steps", self.max_steps, "steps of the solver", at_least(1));
//       field("rel_tol", self.rel_tol, "stop when |f(z) - z| <= rel_tol |f(z)|", at_least(0));
//     }
//   };
//
// A member may be bool, int64_t, double, std::string, std::vector<int64_t>, an enum with `Names`, a
// nested options struct (its keys are prefixed with "key_"; an empty key adds no prefix), or a
// std::variant of option structs that each have a `static constexpr const char* name` (the key
// holds the name of the alternative; the alternative's own keys are prefixed with "key_").
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "deq/base/error.h"

namespace deq {

/// The interval a numeric option must lie in; `open` excludes the bound itself.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;

  bool contains(double value) const;
  std::string describe() const;  ///< ">= 1", "> 0", "in [0, 1)"; empty when unbounded
};
inline Range any() { return {}; }
inline Range at_least(double low) { return {.low = low}; }
inline Range above(double low) { return {.low = low, .low_open = true}; }
inline Range between(double low, double high) { return {.low = low, .high = high}; }
inline Range half_open(double low, double high) {
  return {low, high, false, true};
}  ///< [low, high)
inline Range left_open(double low, double high) {
  return {low, high, true, false};
}  ///< (low, high]

/// Specialise with `static constexpr const char* values[]`, in the order of the enumerators.
template <class E>
struct Names;

/// One option as seen from outside, for flags, help and documentation.
struct OptionInfo {
  std::string key;    ///< with underscores; flags and files write '-' for '_'
  std::string value;  ///< the present (default) value
  std::string type;   ///< "bool", "int", "float", "text", "list", "choice"
  std::string help;
  std::string range;                  ///< Range::describe()
  std::vector<std::string> choices;   ///< of an enum or a variant
  std::string owner = "";             ///< the alternative that has it; "" outside of variants
  std::vector<OptionInfo> also = {};  ///< what other alternatives have under the same key
};
using Assignments = std::map<std::string, std::string>;  ///< key -> value as text

/// The flag's spelling of a key: rel_tol -> rel-tol.
std::string dashed(std::string_view key);
/// The key's spelling of a flag or file entry: rel-tol -> rel_tol.
std::string underscored(std::string_view name);
/// The candidate nearest to `name` by edit distance, or "" when none is near.
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
/// Help, choices, range and, unless left out, the default. Where alternatives have different things
/// under one key, a line for each of them that begins with their names.
std::string help_of(const OptionInfo& info, bool with_default);

namespace detail {

template <class T>
struct IsVariant : std::false_type {};
template <class... Ts>
struct IsVariant<std::variant<Ts...>> : std::true_type {};

std::string to_text(bool value);
std::string to_text(int64_t value);
std::string to_text(double value);
std::string to_text(const std::string& value);
std::string to_text(const std::vector<int64_t>& value);
void from_text(const std::string& key, const std::string& text, bool& value);
void from_text(const std::string& key, const std::string& text, int64_t& value);
void from_text(const std::string& key, const std::string& text, double& value);
void from_text(const std::string& key, const std::string& text, std::string& value);
void from_text(const std::string& key, const std::string& text, std::vector<int64_t>& value);
inline const char* type_name(const bool&) { return "bool"; }
inline const char* type_name(const int64_t&) { return "int"; }
inline const char* type_name(const double&) { return "float"; }
inline const char* type_name(const std::string&) { return "text"; }
inline const char* type_name(const std::vector<int64_t>&) { return "list"; }

template <class E>
std::vector<std::string> enum_names() {
  return {std::begin(Names<E>::values), std::end(Names<E>::values)};
}
template <class V, size_t... I>
std::vector<std::string> variant_names(std::index_sequence<I...>) {
  return {std::variant_alternative_t<I, V>::name...};
}
template <class V>
std::vector<std::string> variant_names() {
  return variant_names<V>(std::make_index_sequence<std::variant_size_v<V>>());
}
/// Puts the default of alternative number `index` into `v`.
template <class V, size_t I = 0>
void emplace_index(V& v, size_t index) {
  if constexpr (I < std::variant_size_v<V>) {
    if (index == I) {
      if (v.index() != I) v.template emplace<I>();
    } else {
      emplace_index<V, I + 1>(v, index);
    }
  }
}
size_t index_of(const std::string& key, const std::string& name,
                const std::vector<std::string>& known);
void check_range(const std::string& key, double value, const Range& range);

/// The walk over `fields()` that all visitors share: `Leaf` gets scalars and the names of choices.
template <class Leaf>
class Walk {
 public:
  Walk(Leaf& leaf, std::string prefix) : leaf_(leaf), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(const char* name, T& member, const char* help = "", const Range& range = {}) {
    using V = std::remove_const_t<T>;
    const std::string key = prefix_ + name;
    if constexpr (IsVariant<V>::value) {
      leaf_.choice(key, member, help);
    } else if constexpr (std::is_enum_v<V>) {
      leaf_.enumeration(key, member, help);
    } else if constexpr (requires(T & m, Walk & w) { V::fields(m, w); }) {
      Walk nested(leaf_, *name ? key + "_" : prefix_);
      V::fields(member, nested);
    } else {
      leaf_.scalar(key, member, help, range);
    }
  }

 private:
  Leaf& leaf_;
  std::string prefix_;
};
template <class Leaf, class T>
void walk(Leaf& leaf, const std::string& prefix, T& options) {
  Walk<Leaf> walker(leaf, prefix);
  std::remove_const_t<T>::fields(options, walker);
}

/// Collects every option, those of alternatives that are not selected included.
struct ListLeaf {
  std::vector<OptionInfo> infos;
  std::map<std::string, size_t> places = {};  // key -> place in infos
  std::string owner = "";                     // the alternative that is being walked
  bool only_selected = false;

  void add(OptionInfo info);
  template <class T>
  void walk_alternative(const std::string& key, const T& alternative) {
    const std::string outer = std::exchange(owner, alternative.name);
    walk(*this, key + "_", alternative);
    owner = outer;
  }
  template <class T>
  void scalar(const std::string& key, const T& value, const char* help, const Range& range) {
    add({key, to_text(value), type_name(value), help, range.describe(), {}});
  }
  template <class E>
  void enumeration(const std::string& key, const E& value, const char* help) {
    const auto names = enum_names<std::remove_const_t<E>>();
    add({key, names[static_cast<size_t>(value)], "choice", help, "", names});
  }
  template <class V>
  void choice(const std::string& key, const V& value, const char* help) {
    const auto names = variant_names<std::remove_const_t<V>>();
    add({key, names[value.index()], "choice", help, "", names});
    std::visit([&](const auto& selected) { walk_alternative(key, selected); }, value);
    if (only_selected) return;
    for (size_t i = 0; i < names.size(); ++i) {
      if (i == value.index()) continue;
      std::remove_const_t<V> other;
      emplace_index(other, i);
      std::visit([&](const auto& alternative) { walk_alternative(key, alternative); }, other);
    }
  }
};

/// Takes from `values` what belongs to the visited options; choices are made before their fields.
struct AssignLeaf {
  const Assignments& values;
  std::set<std::string> used;

  const std::string* take(const std::string& key) {
    const auto found = values.find(key);
    if (found == values.end()) return nullptr;
    used.insert(key);
    return &found->second;
  }
  template <class T>
  void scalar(const std::string& key, T& value, const char*, const Range& range) {
    const std::string* text = take(key);
    if (!text) return;
    T parsed{};
    from_text(key, *text, parsed);
    if constexpr (std::is_arithmetic_v<T>) check_range(dashed(key), double(parsed), range);
    value = parsed;
  }
  template <class E>
  void enumeration(const std::string& key, E& value, const char*) {
    if (const std::string* text = take(key)) value = E(index_of(key, *text, enum_names<E>()));
  }
  template <class V>
  void choice(const std::string& key, V& value, const char*) {
    if (const std::string* text = take(key)) {
      emplace_index(value, index_of(key, *text, variant_names<V>()));
    }
    std::visit([&](auto& selected) { walk(*this, key + "_", selected); }, value);
  }
};

/// Checks the ranges of values that were set in code.
struct ValidateLeaf {
  template <class T>
  void scalar(const std::string& key, const T& value, const char*, const Range& range) {
    if constexpr (std::is_arithmetic_v<T>) check_range(key, double(value), range);
  }
  template <class E>
  void enumeration(const std::string&, const E&, const char*) {}
  template <class V>
  void choice(const std::string& key, const V& value, const char*) {
    std::visit([&](const auto& selected) { walk(*this, key + ".", selected); }, value);
  }
};

[[noreturn]] void reject_unknown(const std::string& key, const std::vector<OptionInfo>& known,
                                 const std::vector<OptionInfo>& in_force);

}  // namespace detail

/// Every option of `options`, in the order of its fields, alternatives included.
template <class T>
std::vector<OptionInfo> list_options(const T& options) {
  detail::ListLeaf leaf;
  detail::walk(leaf, "", options);
  return std::move(leaf.infos);
}

/// The options in force, as (key, value) with the alternatives that are selected.
template <class T>
std::vector<OptionInfo> selected_options(const T& options) {
  detail::ListLeaf leaf;
  leaf.only_selected = true;
  detail::walk(leaf, "", options);
  return std::move(leaf.infos);
}

/// Sets the fields named in `values`. Throws deq::Error for a key that no field has (naming the
/// nearest), for a key of an alternative that is not selected, and for a value of the wrong type or
/// range.
template <class T>
void assign_options(T& options, const Assignments& values) {
  T updated = options;
  detail::AssignLeaf leaf{values, {}};
  detail::walk(leaf, "", updated);
  for (const auto& [key, text] : values) {
    if (!leaf.used.count(key))
      detail::reject_unknown(key, list_options(updated), selected_options(updated));
  }
  options = std::move(updated);
}

/// Throws deq::Error, "Anderson.memory = 0; expected >= 1", for a field outside its range.
template <class T>
void validate(const T& options, const std::string& name) {
  detail::ValidateLeaf leaf;
  detail::walk(leaf, name + ".", options);
}

/// `options` as the lines of a TOML file that reads back to the same options.
std::string to_toml(const std::vector<OptionInfo>& options);
/// The flat key = value pairs of TOML text; `source` names it in errors. Tables are errors.
Assignments parse_toml(const std::string& text, const std::string& source);

}  // namespace deq
