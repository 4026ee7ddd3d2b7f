// The configuration reader and writer: flat TOML, one key per option.
#include <toml++/toml.h>

#include "deq/base/fields.h"
#include "deq/base/printable.h"

namespace deq {
namespace {

/// A TOML basic string: quotes, backslashes and control characters escaped.
std::string toml_string(const std::string& text) {
  DEQ_CHECK(is_utf8(text), "'{}' is not UTF-8; a configuration file must be", printable(text));
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string scalar_text(const toml::node& node, const std::string& key, const std::string& source) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* whole = node.as_integer()) return std::to_string(whole->get());
  if (const auto* real = node.as_floating_point())
    return detail::to_text(real->get());  // "1.0": no whole number
  throw Error(fmt::format("{}: {} is no string, number, boolean or list of numbers", source,
                          printable(key)));
}

}  // namespace

std::string to_toml(const std::vector<OptionInfo>& options) {
  std::string out;
  for (const OptionInfo& option : options) {
    std::string value = option.value;
    if (option.type == "text" || option.type == "choice") value = toml_string(value);
    if (option.type == "list") value = "[" + value + "]";
    out += fmt::format("{} = {}\n", dashed(option.key), value);
  }
  return out;
}

Assignments parse_toml(const std::string& text, const std::string& source) {
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw Error(fmt::format("{}:{}: {}", source, error.source().begin.line,
                            printable(error.description(), 200)));
  }
  Assignments values;
  for (const auto& [name, node] : table) {
    const std::string key(name.str());
    std::string value;
    if (const auto* list = node.as_array()) {
      std::vector<std::string> items;
      for (const auto& item : *list) items.push_back(scalar_text(item, key, source));
      value = "[" + join(items, ",") + "]";  // in brackets, so that [1] is no 1
    } else {
      DEQ_CHECK(!node.is_table(), "{}: [{}] is a table; options are flat, `key = value`", source,
                printable(key));
      value = scalar_text(node, key, source);
    }
    DEQ_CHECK(values.emplace(underscored(key), value).second, "{}: {} is set twice", source,
              printable(key));
  }
  return values;
}

}  // namespace deq
