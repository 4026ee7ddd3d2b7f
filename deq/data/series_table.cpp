#include "deq/data/series_table.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "deq/base/error.h"
#include "deq/base/printable.h"
#include "deq/base/utf8.h"
#include "deq/data/csv.h"
#include "deq/files/files.h"

namespace deq {
namespace {

constexpr uint64_t kMostBytes = uint64_t(1) << 32;
constexpr const char* kNoTime = "none";

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return text;
}

bool is_missing(const std::string& cell) {
  const std::string word = lower(cell);
  return word.empty() || word == "nan" || word == "na" || word == "null" || word == "none";
}

std::optional<double> parse_number(std::string_view text) {
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  // What is too large for a double is as infinite as what says so; what is too small is 0.
  if (parsed.ec == std::errc::result_out_of_range)
    value = std::strtod(std::string(text).c_str(), nullptr);
  if (parsed.ec == std::errc::invalid_argument || parsed.ptr != text.data() + text.size())
    return std::nullopt;
  return value;
}

bool is_control(unsigned char c) { return c < ' ' || c == 0x7f; }

/// The rows of a CSV text below its header.
class Table {
 public:
  Table(std::string_view text, const std::string& source)
      : source_(printable(source, 400)), rows_(parse_csv(text, source)) {
    DEQ_CHECK(rows_.size() >= 2, "{}: {} lines; expected the columns' names and rows of values",
              source_, rows_.size());
    header_ = rows_.front().cells;
    header_line_ = rows_.front().line;
    rows_.erase(rows_.begin());
    check_names();
    for (const CsvRow& row : rows_)
      DEQ_CHECK(row.cells.size() == header_.size(),
                "{}, line {}: {} cells; expected {}, as there are columns", source_, row.line,
                row.cells.size(), header_.size());
  }

  const std::vector<std::string>& header() const { return header_; }
  size_t rows() const { return rows_.size(); }
  const std::string& cell(size_t row, size_t column) const { return rows_[row].cells[column]; }

  size_t column(const std::string& name) const {
    const auto found = std::find(header_.begin(), header_.end(), name);
    DEQ_CHECK(found != header_.end(), "{}: no column '{}'; known: {}", source_, printable(name),
              printable(fmt::format("{}", fmt::join(header_, ", ")), 200));
    return size_t(found - header_.begin());
  }

  [[noreturn]] void refuse(size_t row, size_t column, const std::string& expected) const {
    throw Error(fmt::format("{}, line {}, column '{}': '{}'; expected {}", source_, rows_[row].line,
                            printable(header_[column]), printable(cell(row, column)), expected));
  }

 private:
  void check_names() const {
    bool numbers = true;
    for (size_t i = 0; i < header_.size(); ++i) {
      DEQ_CHECK(!header_[i].empty(), "{}, line {}: column {} has no name; expected one", source_,
                header_line_, i + 1);
      DEQ_CHECK(find_invalid_utf8(header_[i]) == std::string::npos,
                "{}, line {}: the name of column {}, '{}', is not UTF-8; expected UTF-8", source_,
                header_line_, i + 1, printable(header_[i]));
      DEQ_CHECK(std::none_of(header_[i].begin(), header_[i].end(), is_control),
                "{}, line {}: the name of column {}, '{}', has a line break or another control "
                "character; expected none",
                source_, header_line_, i + 1, printable(header_[i]));
      DEQ_CHECK(std::find(header_.begin(), header_.begin() + int64_t(i), header_[i]) ==
                    header_.begin() + int64_t(i),
                "{}, line {}: two columns '{}'; expected one of each name", source_, header_line_,
                printable(header_[i]));
      numbers = numbers && parse_number(header_[i]);
    }
    DEQ_CHECK(!numbers, "{}, line {}: numbers alone; expected the columns' names", source_,
              header_line_);
  }

  std::string source_;
  std::vector<CsvRow> rows_;
  std::vector<std::string> header_;
  int64_t header_line_ = 1;
};

std::optional<size_t> time_column(const Table& table, const std::string& wanted) {
  if (wanted == kNoTime) return std::nullopt;
  if (!wanted.empty()) return table.column(wanted);
  const std::vector<std::string>& header = table.header();
  for (size_t i = 0; i < header.size(); ++i) {
    const std::string name = lower(header[i]);
    if (name == "time" || name == "date" || name == "datetime" || name == "timestamp") return i;
  }
  for (size_t row = 0; row < table.rows(); ++row) {
    if (!parse_date(table.cell(row, 0))) return std::nullopt;
  }
  return 0;
}

Clock read_times(const Table& table, size_t column) {
  const bool dates = parse_date(table.cell(0, column)).has_value();
  std::vector<double> times;
  for (size_t row = 0; row < table.rows(); ++row) {
    const std::string& cell = table.cell(row, column);
    const std::optional<double> time = dates ? parse_date(cell) : parse_number(cell);
    if (!time || !std::isfinite(*time))
      table.refuse(row, column,
                   dates ? "a date such as 2020-01-31 or 2020-01-31T06:00, as above"
                         : "a time: a date such as 2020-01-31, or a number");
    if (row > 0 && *time <= times.back())
      table.refuse(row, column,
                   fmt::format("a time after '{}', which stands before it",
                               printable(table.cell(row - 1, column))));
    times.push_back(*time);
  }
  return Clock(std::move(times), dates);
}

double read_value(const Table& table, size_t row, size_t column) {
  const std::string& cell = table.cell(row, column);
  if (is_missing(cell)) return std::numeric_limits<double>::quiet_NaN();
  const std::optional<double> value = parse_number(cell);
  if (!value || !std::isfinite(*value))
    table.refuse(row, column, "a finite number, or nothing where it is missing");
  return *value;
}

}  // namespace

std::vector<std::string> split_names(const std::string& names) {
  std::vector<std::string> found;
  for (size_t first = 0; first < names.size();) {
    const size_t end = std::min(names.find(',', first), names.size());
    found.push_back(names.substr(first, end - first));
    first = end + 1;
  }
  return found;
}

SeriesTable read_table(std::string_view text, const std::string& source, const TableRule& rule) {
  const Table table(text, source);
  SeriesTable read{.source = printable(source, 400)};
  const std::optional<size_t> time = time_column(table, rule.time);
  if (time) read.clock = read_times(table, *time);
  std::vector<size_t> places;
  for (const std::string& name : rule.columns) {
    const size_t place = table.column(name);
    DEQ_CHECK(!time || place != *time, "{}: column '{}' holds the times; expected one of values",
              read.source, printable(name));
    DEQ_CHECK(std::find(places.begin(), places.end(), place) == places.end(),
              "column '{}' twice; expected each once", printable(name));
    places.push_back(place);
  }
  if (rule.columns.empty()) {
    for (size_t i = 0; i < table.header().size(); ++i) {
      if (!time || i != *time) places.push_back(i);
    }
  }
  DEQ_CHECK(!places.empty(), "{}: no column of values; expected one beside the times", read.source);
  for (const size_t place : places) read.columns.push_back(table.header()[place]);
  read.values = at::empty({int64_t(table.rows()), int64_t(places.size())}, at::kDouble);
  double* value = read.values.data_ptr<double>();
  for (size_t row = 0; row < table.rows(); ++row) {
    for (const size_t place : places) *value++ = read_value(table, row, place);
  }
  return read;
}

SeriesTable read_table(const std::filesystem::path& file, const TableRule& rule) {
  return read_table(read_file(file, kMostBytes), file.string(), rule);
}

}  // namespace deq
