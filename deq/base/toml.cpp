// The configuration reader: flat TOML (toml.io, 1.0), one key per option. Strings,
// numbers, booleans and lists of numbers are read in all of their TOML spellings; tables and dates
// are refused. Written out here because toml++ 3.3 has undefined behaviour on invalid files ("[%",
// "a = 1\u0170").
#include "deq/base/toml.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "deq/base/printable.h"
#include "deq/base/utf8.h"

namespace deq {
namespace {

bool is_control(char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; }
bool is_key_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

std::string encode_utf8(uint32_t code) {
  std::string out;
  const auto tail = [&](int shift) { out += char(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    out += char(code);
  } else if (code < 0x800) {
    out += char(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += char(0xE0 | code >> 12);
    tail(6), tail(0);
  } else {
    out += char(0xF0 | code >> 18);
    tail(12), tail(6), tail(0);
  }
  return out;
}

/// Moves one or more digits, with single underscores between them, from `from` to `digits`.
bool take_digits(std::string_view& from, std::string& digits, int base = 10) {
  const auto is_digit = [&](size_t i) {
    if (i >= from.size()) return false;
    const char c = from[i];
    const int value = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;
    return value < base;
  };
  size_t i = 0;
  while (is_digit(i) ||
         (i > 0 && i < from.size() && from[i] == '_' && is_digit(i - 1) && is_digit(i + 1))) {
    if (from[i] != '_') digits += from[i];
    ++i;
  }
  from.remove_prefix(i);
  return i > 0;
}

template <class T, class... Base>
bool convert(const std::string& digits, T& value, Base... base) {
  const char* end = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), end, value, base...);
  return result.ec == std::errc() && result.ptr == end;
}

/// The number's text in the spelling that `from_text` reads; "" when it is no TOML number.
std::string number_text(std::string_view token) {
  std::string digits;
  int64_t whole = 0;
  if (token.size() > 2 && token[0] == '0' && std::string_view("xob").find(token[1]) != token.npos) {
    const int base = token[1] == 'x' ? 16 : token[1] == 'o' ? 8 : 2;
    token.remove_prefix(2);
    const bool valid =
        take_digits(token, digits, base) && token.empty() && convert(digits, whole, base);
    return valid ? detail::to_text(whole) : "";
  }
  const bool negative = token.starts_with('-');
  if (negative || token.starts_with('+')) token.remove_prefix(1);
  if (negative) digits = "-";
  if (token == "inf" || token == "nan") return digits + std::string(token);
  const size_t sign = digits.size();
  if (!take_digits(token, digits)) return "";
  if (digits.size() > sign + 1 && digits[sign] == '0') return "";  // 007
  if (token.empty()) return convert(digits, whole) ? detail::to_text(whole) : "";
  if (token.starts_with('.')) {
    digits += '.';
    token.remove_prefix(1);
    if (!take_digits(token, digits)) return "";
  }
  if (token.starts_with('e') || token.starts_with('E')) {
    digits += 'e';
    token.remove_prefix(1);
    if (token.starts_with('-') || token.starts_with('+')) {
      digits += token[0];
      token.remove_prefix(1);
    }
    if (!take_digits(token, digits)) return "";
  }
  double real = 0;
  return token.empty() && convert(digits, real) ? detail::to_text(real) : "";
}

/// A position in the text, and what TOML allows there.
class Reader {
 public:
  Reader(const std::string& text, const std::string& source) : rest_(text), source_(source) {
    if (const size_t bad = find_invalid_utf8(rest_); bad != rest_.npos) {
      const size_t line = rest_.substr(0, bad).rfind('\n');
      if (line != rest_.npos) advance(line + 1);
      refuse("not UTF-8 text");
    }
    rest_ = without_mark(rest_);
  }

  /// The next key and its value, up to the end of their line; false at the end of the text.
  bool next(std::string& key, std::string& value) {
    skip_blank(true);
    if (rest_.empty()) return false;
    if (rest_.front() == '[') refuse("tables are not options; these are flat, `key = value`");
    key_place_ = place();
    key = read_key();
    skip_blank(false);
    if (rest_.starts_with('.'))
      refuse("dotted keys are not options; these are flat, `key = value`");
    if (!take("=")) refuse(fmt::format("expected = after {}, got {}", printable(key), here()));
    skip_blank(false);
    value = read_value(key);
    skip_blank(false);
    if (!rest_.empty() && !at_newline()) {
      refuse(fmt::format("expected the end of the line after {}, got {}", printable(key), here()));
    }
    return true;
  }

  [[noreturn]] void refuse(const std::string& reason) const {
    throw Error(fmt::format("{}: {}", place(), reason));
  }

  /// Where the last key stands.
  const std::string& key_place() const { return key_place_; }

 private:
  std::string place() const { return fmt::format("{}:{}", printable(source_, 400), line_); }
  void advance(size_t count) {
    for (size_t i = 0; i < count; ++i) line_ += rest_[i] == '\n';
    rest_.remove_prefix(count);
  }
  bool take(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    advance(expected.size());
    return true;
  }
  bool at_newline() const { return rest_.starts_with('\n') || rest_.starts_with("\r\n"); }
  bool take_newline() { return take("\n") || take("\r\n"); }

  /// What stands here, for a message: the rest of the line.
  std::string here() const {
    const std::string_view line = rest_.substr(0, rest_.find_first_of("\r\n"));
    return line.empty() ? "the end of the line" : "'" + printable(line, 40) + "'";
  }

  void skip_blank(bool newlines) {
    for (;;) {
      if (take(" ") || take("\t") || (newlines && take_newline())) continue;
      if (!rest_.starts_with('#')) return;
      const size_t end = std::min(rest_.find('\n'), rest_.size());
      const size_t length = end > 0 && end < rest_.size() && rest_[end - 1] == '\r' ? end - 1 : end;
      for (const char c : rest_.substr(0, length)) {
        if (is_control(c)) refuse("a comment has a control character");
      }
      advance(length);
    }
  }

  std::string read_key() {
    if (rest_.starts_with('"') || rest_.starts_with('\'')) return read_string(false);
    size_t size = 0;
    while (size < rest_.size() && is_key_character(rest_[size])) ++size;
    if (size == 0) refuse("expected `key = value`, got " + here());
    const std::string key(rest_.substr(0, size));
    advance(size);
    return key;
  }

  std::string read_value(const std::string& key) {
    if (rest_.starts_with('"') || rest_.starts_with('\'')) return read_string(true);
    if (!take("[")) return read_bare(key);
    // In brackets, so that a list of one number does not pass for a number.
    std::string items = "[";
    for (skip_blank(true); !take("]"); skip_blank(true)) {
      if (items.size() > 1 && !take(","))
        refuse(printable(key) + ": expected , or ] in the list, got " + here());
      skip_blank(true);
      if (items.size() > 1 && take("]")) break;  // after a trailing comma
      items += (items.size() > 1 ? "," : "") + read_bare(key);
    }
    return items + "]";
  }

  /// A number, true or false.
  std::string read_bare(const std::string& key) {
    size_t size = 0;
    while (size < rest_.size() &&
           (is_key_character(rest_[size]) || rest_[size] == '+' || rest_[size] == '.'))
      ++size;
    const std::string_view token = rest_.substr(0, size);
    const std::string text =
        token == "true" || token == "false" ? std::string(token) : number_text(token);
    if (text.empty()) {
      if (rest_.empty() || at_newline()) refuse(printable(key) + " has no value");
      refuse(
          fmt::format("{} = {}; expected a \"string\", a number, true, false or a list of numbers",
                      printable(key), here()));
    }
    advance(size);
    return text;
  }

  std::string read_string(bool may_have_lines) {
    const char quote = rest_.front();
    const std::string three(3, quote);
    const bool lines = may_have_lines && take(three);
    if (lines) {
      take_newline();
    } else {
      advance(1);
    }
    std::string out;
    while (!ends_string(quote, lines, out)) {
      if (rest_.empty()) refuse("a string has no end");
      if (quote == '"' && take("\\")) {
        read_escape(lines, out);
      } else if (at_newline()) {
        if (!lines) refuse("a string has no end on its line");
        take_newline();
        out += '\n';
      } else {
        if (is_control(rest_.front())) refuse("a string has a control character");
        out += rest_.front();
        advance(1);
      }
    }
    return out;
  }

  /// Takes the closing quotes. Of more than three, the first ones are part of the string.
  bool ends_string(char quote, bool lines, std::string& out) {
    if (!lines) return take(std::string_view(&quote, 1));
    if (!take(std::string(3, quote))) return false;
    for (int extra = 0; extra < 2 && take(std::string_view(&quote, 1)); ++extra) out += quote;
    return true;
  }

  void read_escape(bool lines, std::string& out) {
    static constexpr std::string_view kNames = "btnfr\"\\", kValues = "\b\t\n\f\r\"\\";
    const char name = rest_.empty() ? '\0' : rest_.front();
    if (const size_t known = kNames.find(name); known != kNames.npos) {
      out += kValues[known];
      advance(1);
    } else if (name == 'u' || name == 'U') {
      const size_t size = name == 'u' ? 4 : 8;
      const std::string digits(rest_.substr(1, size));
      uint32_t code = 0;
      const bool valid = digits.size() == size && convert(digits, code, 16) && code <= 0x10FFFF &&
                         (code < 0xD800 || code > 0xDFFF);
      if (!valid) refuse(fmt::format("\\{}{} is no character", name, printable(digits)));
      out += encode_utf8(code);
      advance(size + 1);
    } else if (lines && ends_line()) {
      while (take(" ") || take("\t") || take_newline()) {
      }
    } else {
      refuse("unknown escape \\" + here() + "; known: \\b \\t \\n \\f \\r \\\" \\\\ \\u \\U");
    }
  }

  bool ends_line() const {
    const size_t next = rest_.find_first_not_of(" \t");
    return next != rest_.npos && (rest_[next] == '\n' || rest_.substr(next, 2) == "\r\n");
  }

  std::string_view rest_;
  const std::string& source_;
  int line_ = 1;
  std::string key_place_;
};

}  // namespace

Assignments parse_toml(const std::string& text, const std::string& source, Places* places) {
  Assignments values;
  Reader reader(text, source);
  for (std::string key, value; reader.next(key, value);) {
    const bool is_new = values.emplace(underscored(key), value).second;
    if (!is_new) reader.refuse(printable(key) + " is set twice");
    if (places) places->emplace(underscored(key), reader.key_place());
  }
  return values;
}

}  // namespace deq
