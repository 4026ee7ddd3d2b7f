#include "deq/base/scalar_text.h"

#include <charconv>
#include <cmath>
#include <type_traits>
#include <utility>

#include "deq/base/printable.h"

namespace deq::detail {
namespace {

std::string to_text(bool value) { return value ? "true" : "false"; }
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

void check_number(const std::string& key, double value, const Range& range) {
  const std::string expected = range.describe();
  DEQ_CHECK(range.contains(value), "{} = {}; expected {}", key, value,
            expected.empty() ? "a number" : expected);
}

}  // namespace

std::string to_text(int64_t value) { return std::to_string(value); }

std::string to_text(double value) {
  std::string text =
      fmt::format("{}", value);  // the shortest text that reads back to the same double
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

const char* type_name(const Scalar& scalar) {
  static constexpr const char* kNames[] = {"bool", "int", "float", "text", "list"};
  return kNames[scalar.index()];
}

std::string text_of(const Scalar& scalar) {
  return std::visit([](const auto* held) { return to_text(*held); }, scalar);
}

void read_text(const std::string& key, const std::string& text, const Range& range, Scalar scalar) {
  const auto read = [&]<class T>(T* place) {
    T parsed{};
    from_text(key, text, parsed);
    if constexpr (std::is_arithmetic_v<T>) check_number(dashed(key), double(parsed), range);
    *place = std::move(parsed);
  };
  std::visit(read, scalar);
}

void check_range(const std::string& key, Scalar scalar, const Range& range) {
  const auto check = [&]<class T>(const T* held) {
    if constexpr (std::is_arithmetic_v<T>) check_number(key, double(*held), range);
  };
  std::visit(check, scalar);
}

}  // namespace deq::detail
