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
// choice among option structs that each have a `static constexpr const char* name` (the key holds
// the name of the alternative; the alternative's own keys are prefixed with "key_"): a
// std::variant, or a Choice (choice.h), whose list of alternatives no header knows.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
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
  std::string group = "";             ///< what it is about, as help sorts it
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

class Walk;

template <class E>
std::vector<std::string> enum_names() {
  return {std::begin(Names<E>::values), std::end(Names<E>::values)};
}

/// A place that holds one of several alternatives, whatever its type.
struct Alternatives {
  virtual ~Alternatives() = default;
  virtual std::vector<std::string> names() const = 0;
  virtual std::string name() const = 0;    ///< of the one that is held
  virtual void choose(size_t index) = 0;   ///< its default, unless it is held already
  virtual void walk_held(Walk& walk) = 0;  ///< its fields
};

/// Where a member of type bool, int64_t, double, std::string or std::vector<int64_t> stands.
using Scalar = std::variant<bool*, int64_t*, double*, std::string*, std::vector<int64_t>*>;

/// What is done at each option of a walk.
struct Leaf {
  virtual ~Leaf() = default;
  virtual void scalar(const std::string& key, Scalar value, const char* help,
                      const Range& range) = 0;
  /// One of `names`, by its place.
  virtual void enumeration(const std::string& key, size_t& value,
                           const std::vector<std::string>& names, const char* help) = 0;
  virtual void choice(const std::string& key, Alternatives& value, const char* help) = 0;
  virtual void group(const char* /*name*/) {}
};

template <class V>
class VariantAlternatives;

/// The walk over `fields()` that everything shares. Not a template over what is done, so that a
/// list of fields is compiled once.
class Walk {
 public:
  Walk(Leaf& leaf, std::string prefix) : leaf_(leaf), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(const char* name, T& member, const char* help = "", const Range& range = {}) {
    if constexpr (requires { Scalar(&member); }) {
      leaf_.scalar(prefix_ + name, &member, help, range);
    } else if constexpr (std::is_enum_v<T>) {
      auto place = static_cast<size_t>(member);
      leaf_.enumeration(prefix_ + name, place, enum_names<T>(), help);
      member = static_cast<T>(place);
    } else if constexpr (IsVariant<T>::value) {
      VariantAlternatives<T> alternatives(member);
      leaf_.choice(prefix_ + name, alternatives, help);
    } else if constexpr (requires { member.alternatives(); }) {
      auto alternatives = member.alternatives();
      leaf_.choice(prefix_ + name, alternatives, help);
    } else {
      Walk nested(leaf_, *name ? prefix_ + name + "_" : prefix_);
      T::fields(member, nested);
    }
  }

  /// What the fields behind it are about, until the next group: a heading in help.
  void group(const char* name) { leaf_.group(name); }

 private:
  Leaf& leaf_;
  std::string prefix_;
};

/// The alternatives of a std::variant.
template <class V>
class VariantAlternatives : public Alternatives {
 public:
  explicit VariantAlternatives(V& value) : value_(value) {}
  std::vector<std::string> names() const override {
    return names(std::make_index_sequence<std::variant_size_v<V>>());
  }
  std::string name() const override { return names()[value_.index()]; }
  void choose(size_t index) override { emplace<0>(index); }
  void walk_held(Walk& walk) override {
    std::visit([&](auto& held) { held.fields(held, walk); }, value_);
  }

 private:
  template <size_t... I>
  std::vector<std::string> names(std::index_sequence<I...>) const {
    return {std::variant_alternative_t<I, V>::name...};
  }
  template <size_t I>
  void emplace(size_t index) {
    if constexpr (I < std::variant_size_v<V>) {
      if (index != I) return emplace<I + 1>(index);
      if (value_.index() != I) value_.template emplace<I>();
    }
  }

  V& value_;
};

/// The spelling of a double that reads back to the same one, with a point or an exponent.
std::string to_text(double value);
std::string to_text(int64_t value);
/// The place of a name; throws deq::Error, which names `key` and what is known, where it has none.
size_t index_of(const std::string& key, const std::string& name,
                const std::vector<std::string>& known);

/// Starts a walk of some options.
using Start = std::function<void(Walk&)>;
std::vector<OptionInfo> list(const Start& start, bool only_selected);
/// Takes what belongs to the visited options, choices before their fields; returns the keys that
/// belong to none.
std::vector<std::string> assign(const Start& start, const Assignments& values);
void check_ranges(const Start& start, const std::string& prefix);
[[noreturn]] void reject_unknown(const std::string& key, const std::vector<OptionInfo>& known,
                                 const std::vector<OptionInfo>& in_force);

/// Of a copy, which the walk may change.
template <class T>
Start walk_of(T& copy) {
  return [&copy](Walk& walk) { T::fields(copy, walk); };
}

}  // namespace detail

/// Every option of `options`, in the order of its fields, alternatives included.
template <class T>
std::vector<OptionInfo> list_options(T options) {
  return detail::list(detail::walk_of(options), /*only_selected=*/false);
}

/// The options in force, as (key, value) with the alternatives that are selected.
template <class T>
std::vector<OptionInfo> selected_options(T options) {
  return detail::list(detail::walk_of(options), /*only_selected=*/true);
}

/// Sets the fields named in `values`. Throws deq::Error for a key that no field has (naming the
/// nearest), for a key of an alternative that is not selected, and for a value of the wrong type or
/// range.
template <class T>
void assign_options(T& options, const Assignments& values) {
  T updated = options;
  const auto unknown = detail::assign(detail::walk_of(updated), values);
  if (!unknown.empty())
    detail::reject_unknown(unknown.front(), list_options(updated), selected_options(updated));
  options = std::move(updated);
}

/// Throws deq::Error, "Anderson.memory = 0; expected >= 1", for a field outside its range.
template <class T>
void validate(T options, const std::string& name) {
  detail::check_ranges(detail::walk_of(options), name);
}

}  // namespace deq
