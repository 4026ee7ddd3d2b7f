#include "deq/data/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "deq/base/printable.h"
#include "deq/base/utf8.h"
#include "deq/files/files.h"
#include "deq/files/sha256.h"

namespace deq {

const char* unit_name(Unit unit) { return Names<Unit>::values[size_t(unit)]; }

const char* metric_name(Unit unit) {
  constexpr const char* names[] = {"perplexity", "bits per byte", "bits per character",
                                   "cross-entropy", "scaled error"};
  return names[size_t(unit)];
}

double metric_value(Unit unit, double mean_nats) {
  if (!makes_text(unit)) return mean_nats;
  return unit == Unit::Word ? std::exp(mean_nats) : mean_nats / std::log(2.0);
}

namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

void for_each_token(Unit unit, std::string_view text,
                    const std::function<void(std::string_view token, int64_t offset)>& use,
                    const std::string& source, int64_t offset) {
  for (size_t at = 0, end = 0; at < text.size(); at = end) {
    end = at + 1;
    if (is_spaced(unit) && is_space(text[at])) {
      if (unit == Unit::Word && text[at] == '\n') use(kEndOfLine, offset + int64_t(at));
      continue;
    }
    if (is_spaced(unit)) {
      while (end < text.size() && !is_space(text[end])) ++end;
    } else if (unit == Unit::Character) {
      end = at + utf8_length(text, at);
      DEQ_CHECK(end > at, "{}: byte {} (0x{:02x}) is not UTF-8", printable(source, 400),
                offset + int64_t(at), static_cast<unsigned char>(text[at]));
    }
    use(text.substr(at, end - at), offset + int64_t(at));
  }
}

struct Vocabulary::Table {
  std::vector<std::string> tokens;
  std::unordered_map<std::string_view, int64_t> ids;  // views of `tokens`, which never change
  int64_t unknown = -1;
};

Vocabulary::Vocabulary(Unit unit, std::vector<std::string> tokens) : unit_(unit) {
  auto table = std::make_shared<Table>();
  table->tokens = std::move(tokens);
  table->ids.reserve(table->tokens.size());
  for (const std::string& token : table->tokens) {
    const int64_t id = int64_t(table->ids.size());
    DEQ_CHECK(!token.empty(), "vocabulary: token {} is empty; expected at least one byte", id);
    const auto [first, inserted] = table->ids.emplace(token, id);
    DEQ_CHECK(inserted, "vocabulary: '{}' is token {} and {}; expected distinct tokens",
              printable(token), first->second, id);
  }
  if (unit == Unit::Byte) {  // encode() and decode() rely on it
    bool whole = table->tokens.size() == 256;
    for (size_t id = 0; whole && id < 256; ++id) {
      whole = table->tokens[id] == std::string(1, static_cast<char>(id));
    }
    DEQ_CHECK(whole, "vocabulary: a list of {} bytes; expected all 256 in order",
              table->tokens.size());
  }
  const auto unknown = table->ids.find(kUnknown);
  const bool has_unknown = unit == Unit::Word || unit == Unit::Character;
  if (has_unknown && unknown != table->ids.end()) table->unknown = unknown->second;
  table_ = std::move(table);
}

Vocabulary Vocabulary::bytes() {
  std::vector<std::string> tokens;
  for (int value = 0; value < 256; ++value) tokens.emplace_back(1, static_cast<char>(value));
  return Vocabulary(Unit::Byte, std::move(tokens));
}

int64_t Vocabulary::size() const { return int64_t(table_->tokens.size()); }

const std::string& Vocabulary::token(int64_t id) const {
  DEQ_CHECK(id >= 0 && id < size(), "token id = {}; expected in [0, {})", id, size());
  return table_->tokens[size_t(id)];
}

std::optional<int64_t> Vocabulary::find(std::string_view token) const {
  const auto found = table_->ids.find(token);
  if (found == table_->ids.end()) return std::nullopt;
  return found->second;
}

int64_t Vocabulary::require(std::string_view token, const std::string& source,
                            int64_t offset) const {
  const auto found = table_->ids.find(token);
  if (found != table_->ids.end()) return found->second;
  if (table_->unknown >= 0) return table_->unknown;
  const char* hint = unit_ == Unit::Word ? ", which has no <unk>"
                     : unit_ == Unit::Character
                         ? " (task-min-count 2 makes rare ones <unk>; task 'bytes' takes any text)"
                         : "";
  throw Error(fmt::format("{}: {} '{}' at byte {} is not in the vocabulary of {} {}s{}", source,
                          unit_name(unit_), printable(token), offset, size(), unit_name(unit_),
                          hint));
}

void Vocabulary::encode(std::string_view text, const std::function<void(int64_t)>& emit,
                        const std::string& source, int64_t offset) const {
  if (unit_ == Unit::Byte) {  // the id is the value
    for (const char byte : text) emit(static_cast<unsigned char>(byte));
    return;
  }
  const auto look_up = [&](std::string_view token, int64_t at) {
    emit(require(token, source, at));
  };
  for_each_token(unit_, text, look_up, source, offset);
}

std::vector<int64_t> Vocabulary::encode(std::string_view text, const std::string& source) const {
  std::vector<int64_t> ids;
  encode(
      text, [&](int64_t id) { ids.push_back(id); }, source);
  return ids;
}

std::string Vocabulary::decode_next(int64_t id, int64_t before) const {
  const std::string& text = token(id);
  if (!is_spaced(unit_)) return text;
  const auto ends_line = [&](const std::string& word) {
    return unit_ == Unit::Word && word == kEndOfLine;
  };
  if (ends_line(text)) return "\n";
  return before < 0 || ends_line(token(before)) ? text : " " + text;
}

std::string Vocabulary::decode(const std::vector<int64_t>& ids) const {
  std::string text;
  int64_t before = -1;
  for (const int64_t id : ids) {
    text += decode_next(id, before);
    before = id;
  }
  return text;
}

namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 30;  // of a file that claims to be a list of tokens
constexpr std::string_view kHeader = "# deq vocabulary: ";

std::string escaped(const std::string& token) {
  std::string out;
  for (size_t at = 0; at < token.size();) {
    const size_t length = utf8_length(token, at);
    const auto byte = static_cast<unsigned char>(token[at]);
    if (byte == '\n' || byte == '\\') {
      out += byte == '\n' ? "\\n" : "\\\\";
      ++at;
    } else if (length == 0 || byte <= 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
      ++at;
    } else {
      out.append(token, at, length);
      at += length;
    }
  }
  return out;
}

/// `where` is "file:line".
std::string unescaped(std::string_view line, const std::string& where) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  std::string token;
  for (size_t at = 0; at < line.size(); ++at) {
    const auto byte = static_cast<unsigned char>(line[at]);
    DEQ_CHECK(byte > 0x20 && byte != 0x7f, "{}: byte 0x{:02x} in '{}'; expected \\x{:02x}", where,
              byte, printable(line), byte);
    if (byte != '\\') {
      token += line[at];
      continue;
    }
    const char kind = at + 1 < line.size() ? line[at + 1] : '\0';
    const int high = at + 3 < line.size() ? digit(line[at + 2]) : -1;
    const int low = at + 3 < line.size() ? digit(line[at + 3]) : -1;
    if (kind == 'n' || kind == '\\') {
      token += kind == 'n' ? '\n' : '\\';
      at += 1;
    } else {
      DEQ_CHECK(kind == 'x' && high >= 0 && low >= 0,
                R"({}: unknown escape in '{}'; known: \n, \\, \xNN)", where, printable(line));
      token += static_cast<char>(high * 16 + low);
      at += 3;
    }
  }
  return token;
}

}  // namespace

std::string Vocabulary::serialize() const {
  std::string text = fmt::format("{}{}\n", kHeader, unit_name(unit_));
  for (const std::string& token : table_->tokens) text += escaped(token) + "\n";
  return text;
}

Vocabulary Vocabulary::parse(std::string_view text, const std::string& source) {
  text = without_mark(text);
  std::string_view first = text.substr(0, text.find('\n'));
  const size_t ending = first.ends_with('\r') ? 2 : 1;  // CRLF; a token's own \r is escaped
  first.remove_suffix(ending - 1);
  DEQ_CHECK(
      first.substr(0, kHeader.size()) == kHeader,
      "{} is no vocabulary: its first line is '{}'; expected '{}word', byte, character or symbol",
      source, printable(first, 60), kHeader);
  const auto known = detail::enum_names<Unit>();
  const std::string_view name = first.substr(kHeader.size());
  const auto found = std::find(known.begin(), known.end(), name);
  DEQ_CHECK(found != known.end(), "{}:1: unknown unit '{}'; known: {}", source, printable(name),
            join(known, ", "));
  const Unit unit = Unit(found - known.begin());
  DEQ_CHECK(text.size() > first.size() && text.back() == '\n',
            "{} is cut off: it does not end with a newline", source);
  std::vector<std::string> tokens;
  for (size_t at = first.size() + ending; at < text.size();) {
    const size_t end = text.find('\n', at) + 1 - ending;
    const std::string where = fmt::format("{}:{}", source, tokens.size() + 2);
    DEQ_CHECK(ending == 1 || (end >= at && text[end] == '\r'),
              "{}: the line ends with LF; expected CRLF, as the first line's", where);
    DEQ_CHECK(end > at, "{}: the line is empty; expected a token", where);
    tokens.push_back(unescaped(text.substr(at, end - at), where));
    at = end + ending;
  }
  return Vocabulary(unit, std::move(tokens));
}

void Vocabulary::save(const std::filesystem::path& path) const { write_file(path, serialize()); }

Vocabulary Vocabulary::load(const std::filesystem::path& path) {
  return parse(read_file(path, kMostBytes), printable(path.string(), 400));
}

std::string Vocabulary::fingerprint() const { return sha256_hex(serialize()); }

}  // namespace deq
