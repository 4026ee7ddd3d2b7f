// The configuration writer; toml.cpp reads what it writes back to the same options.
#include "deq/base/printable.h"
#include "deq/base/toml.h"
#include "deq/base/utf8.h"

namespace deq {
namespace {

/// A TOML basic string: quotes, backslashes and control characters escaped.
std::string toml_string(const std::string& text) {
  DEQ_CHECK(find_invalid_utf8(text) == std::string_view::npos,
            "'{}' is not UTF-8; a configuration file must be", printable(text));
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

}  // namespace deq
