// A value that is one of a list of alternatives which only one source file knows: a new alternative
// is its own file and one line there, and nothing else is compiled again.
#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "deq/base/fields.h"

namespace deq {

/// The alternative that a Choice<Interface> holds. `Interface` derives from Held<Interface>, adds
/// what its alternatives can do, and has
///
///     template <class T> struct Of;  // a HeldAs<Interface, T> that does it
///     static const std::vector<Choice<Interface>>& known();  // the list; its first is the default
template <class Interface>
struct Held {
  virtual ~Held() = default;
  virtual std::unique_ptr<Interface> clone() const = 0;
  virtual const char* name() const = 0;
  virtual void walk(detail::Walk& walk) = 0;
  virtual const std::type_info& type() const = 0;
  virtual void* address() = 0;
};

/// An alternative behind the interface of its list.
template <class Interface, class T>
struct HeldAs : Interface {
  T value;

  explicit HeldAs(T value) : value(std::move(value)) {}
  std::unique_ptr<Interface> clone() const override {
    return std::make_unique<typename Interface::template Of<T>>(value);
  }
  const char* name() const override { return T::name; }
  void walk(detail::Walk& walk) override { T::fields(value, walk); }
  const std::type_info& type() const override { return typeid(T); }
  void* address() override { return &value; }
};

/// Copied as the value it holds. Made from any options struct with a `name`, `fields()` and what
/// Interface::Of asks for: a user's own does as well as those in the list.
template <class Interface>
class Choice {
 public:
  Choice() : Choice(Interface::known().front()) {}
  template <class T>
  requires(!std::derived_from<T, Choice> && requires { T::name; })
      Choice(T value)  // NOLINT: an alternative is a choice
      : held_(std::make_unique<typename Interface::template Of<T>>(std::move(value))) {}
  Choice(const Choice& other) : held_(other.held_->clone()) {}
  Choice(Choice&&) noexcept = default;
  Choice& operator=(const Choice& other) {
    held_ = other.held_->clone();
    return *this;
  }
  Choice& operator=(Choice&&) noexcept = default;

  const char* name() const { return held_->name(); }
  const Interface* operator->() const { return held_.get(); }
  Interface* operator->() { return held_.get(); }

  /// The alternative of that type, or null.
  template <class T>
  T* get_if() {
    return held_->type() == typeid(T) ? static_cast<T*>(held_->address()) : nullptr;
  }
  template <class T>
  const T* get_if() const {
    return const_cast<Choice*>(this)->get_if<T>();
  }
  template <class T>
  bool is() const {
    return get_if<T>() != nullptr;
  }

  /// For the walk over fields.
  class Alternatives;
  Alternatives alternatives() { return Alternatives(*this); }

 private:
  std::unique_ptr<Interface> held_;
};

template <class Interface>
class Choice<Interface>::Alternatives : public detail::Alternatives {
 public:
  explicit Alternatives(Choice& choice) : choice_(choice) {}
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const Choice& one : Interface::known()) names.emplace_back(one.name());
    return names;
  }
  std::string name() const override { return choice_.name(); }
  void choose(size_t index) override {
    const Choice& wanted = Interface::known()[index];
    if (wanted.name() != name()) choice_ = wanted;
  }
  void walk_held(detail::Walk& walk) override { choice_->walk(walk); }

 private:
  Choice& choice_;
};

}  // namespace deq
