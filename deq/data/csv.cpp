#include "deq/data/csv.h"

#include "deq/base/error.h"
#include "deq/base/printable.h"
#include "deq/base/utf8.h"

namespace deq {
namespace {

char separator_of(std::string_view text) {
  const std::string_view first = text.substr(0, text.find('\n'));
  for (const char c : {',', ';', '\t'}) {
    if (first.find(c) != std::string_view::npos) return c;
  }
  return ',';
}

std::string trimmed(std::string_view cell) {
  const size_t first = cell.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return "";
  return std::string(cell.substr(first, cell.find_last_not_of(" \t\r") - first + 1));
}

/// Reads record after record.
class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& source)
      : text_(text), source_(source), separator_(separator_of(text)) {}

  bool done() const { return at_ >= text_.size(); }

  CsvRow next() {
    CsvRow row{.line = line_};
    const size_t begin = at_;
    do {
      row.cells.push_back(cell());
    } while (take(separator_));
    blank_ = row.cells.size() == 1 && trimmed(text_.substr(begin, at_ - begin)).empty();
    if (take('\n')) ++line_;
    return row;
  }

  /// Whether the last record was a line with nothing on it.
  bool blank() const { return blank_; }

 private:
  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string cell() {
    const size_t begin = text_.find_first_not_of(separator_ == '\t' ? " " : " \t", at_);
    if (begin != std::string_view::npos && text_[begin] == '"') return quoted(begin);
    const size_t end =
        std::min(text_.find_first_of(std::string{separator_, '\n'}, at_), text_.size());
    const std::string_view own = text_.substr(at_, end - at_);
    at_ = end;
    return trimmed(own);
  }

  std::string quoted(size_t quote) {
    const int64_t line = line_;
    std::string own;
    for (at_ = quote + 1; !done(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        own += text_[at_];
      } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
        own += text_[at_++];
      } else {
        ++at_;
        while (take(' ') || take('\r')) {
        }
        DEQ_CHECK(done() || text_[at_] == separator_ || text_[at_] == '\n',
                  "{}, line {}: '{}' behind a closing quote; expected '{}' or the line's end",
                  printable(source_, 400), line_, printable(text_.substr(at_, 1)),
                  printable(std::string(1, separator_)));
        return own;
      }
    }
    throw Error(fmt::format("{}, line {}: a quote that is not closed; expected '\"'",
                            printable(source_, 400), line));
  }

  std::string_view text_;
  const std::string& source_;
  char separator_;
  size_t at_ = 0;
  int64_t line_ = 1;
  bool blank_ = false;
};

}  // namespace

std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source) {
  CsvReader reader(without_mark(text), source);
  std::vector<CsvRow> rows;
  size_t filled = 0;  // rows up to the last that is not blank
  while (!reader.done()) {
    CsvRow row = reader.next();
    if (reader.blank() && (rows.empty() || rows.front().cells.size() > 1)) continue;
    rows.push_back(std::move(row));
    if (!reader.blank()) filled = rows.size();
  }
  rows.resize(filled);
  return rows;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",;\t\"\n\r") == std::string::npos && trimmed(text) == text) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

}  // namespace deq
