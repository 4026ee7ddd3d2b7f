#include "deq/data/times.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

namespace deq {
namespace {

using std::chrono::day;
using std::chrono::days;
using std::chrono::last;
using std::chrono::month;
using std::chrono::sys_days;
using std::chrono::year;
using std::chrono::year_month_day;

constexpr double kDay = 86400;
constexpr double kMicro = 1e6;  // parts of a second that are told apart

/// Reads a text from the left.
struct Scan {
  std::string_view left;

  /// So many digits.
  std::optional<int> digits(size_t count) {
    int value = 0;
    if (left.size() < count) return std::nullopt;
    const auto parsed = std::from_chars(left.data(), left.data() + count, value);
    if (parsed.ec != std::errc() || parsed.ptr != left.data() + count || left[0] == '-')
      return std::nullopt;
    left.remove_prefix(count);
    return value;
  }
  bool take(char c) {
    if (left.empty() || left.front() != c) return false;
    left.remove_prefix(1);
    return true;
  }
};

std::optional<double> parse_day(Scan& scan) {
  const auto y = scan.digits(4);
  if (!y || !scan.take('-')) return std::nullopt;
  const auto m = scan.digits(2);
  if (!m || !scan.take('-')) return std::nullopt;
  const auto d = scan.digits(2);
  if (!d) return std::nullopt;
  const year_month_day date{year(*y), month(unsigned(*m)), day(unsigned(*d))};
  if (!date.ok()) return std::nullopt;
  return kDay * double(sys_days(date).time_since_epoch().count());
}

/// Hours and minutes, and seconds where they follow.
std::optional<double> parse_time(Scan& scan) {
  const auto h = scan.digits(2);
  if (!h || *h > 23 || !scan.take(':')) return std::nullopt;
  const auto m = scan.digits(2);
  if (!m || *m > 59) return std::nullopt;
  double seconds = 3600.0 * *h + 60.0 * *m;
  if (!scan.take(':')) return seconds;
  const auto s = scan.digits(2);
  if (!s || *s > 59) return std::nullopt;
  seconds += *s;
  if (!scan.take('.')) return seconds;
  double part = 0.1;
  if (!scan.left.empty() && scan.left[0] != '+')
    for (auto digit = scan.digits(1); digit; digit = scan.digits(1), part /= 10)
      seconds += part * *digit;
  return seconds;
}

/// Seconds that the clock is ahead of UTC.
std::optional<double> parse_offset(Scan& scan) {
  if (scan.left.empty() || scan.take('Z')) return 0;
  const double sign = scan.take('+') ? 1 : scan.take('-') ? -1 : 0;
  const auto h = scan.digits(2);
  if (sign == 0 || !h || *h > 14) return std::nullopt;
  scan.take(':');
  const auto m = scan.left.empty() ? std::optional<int>(0) : scan.digits(2);
  if (!m || *m > 59) return std::nullopt;
  return sign * (3600.0 * *h + 60.0 * *m);
}

year_month_day day_of(double seconds) {
  return year_month_day(sys_days(days(int64_t(std::floor(seconds / kDay)))));
}

int64_t months_of(const year_month_day& date) {
  return 12 * int64_t(int(date.year())) + int64_t(unsigned(date.month())) - 1;
}

day last_day_of(const year_month_day& date) { return (date.year() / date.month() / last).day(); }

/// The day of a month on which all times stand, or the month's last where it is shorter; 31 where
/// each is the last of its month. 0: there is none.
unsigned common_day(const std::vector<double>& times) {
  bool ends = true, alike = true;
  day latest{1};
  for (const double time : times) latest = std::max(latest, day_of(time).day());
  for (const double time : times) {
    const year_month_day date = day_of(time);
    ends = ends && date.day() == last_day_of(date);
    alike = alike && date.day() == std::min(latest, last_day_of(date));
  }
  return ends ? 31 : alike ? unsigned(latest) : 0;
}

/// Months from each day to the next, where all are alike: 0 otherwise.
int64_t common_months(const std::vector<double>& times) {
  int64_t months = 0;
  for (size_t i = 1; i < times.size(); ++i) {
    const int64_t apart = months_of(day_of(times[i])) - months_of(day_of(times[i - 1]));
    if (apart < 1 || (i > 1 && apart != months)) return 0;
    months = apart;
  }
  return months;
}

}  // namespace

std::optional<double> parse_date(std::string_view text) {
  Scan scan{text};
  const auto date = parse_day(scan);
  if (!date || scan.left.empty()) return date;
  if (!scan.take('T') && !scan.take(' ')) return std::nullopt;
  const auto time = parse_time(scan);
  if (!time) return std::nullopt;
  const auto ahead = parse_offset(scan);
  if (!ahead || !scan.left.empty()) return std::nullopt;
  return *date + *time - *ahead;
}

std::string format_date(double seconds, bool with_time) {
  double midnight = kDay * std::floor(seconds / kDay);
  int64_t micros = std::llround((seconds - midnight) * kMicro);
  if (micros >= int64_t(kDay * kMicro)) {  // rounded up to the next day
    midnight += kDay;
    micros = 0;
  }
  const year_month_day date = day_of(midnight);
  std::string text = fmt::format("{:04}-{:02}-{:02}", int(date.year()), unsigned(date.month()),
                                 unsigned(date.day()));
  if (!with_time) return text;
  const int64_t left = micros / int64_t(kMicro), part = micros % int64_t(kMicro);
  text += fmt::format("T{:02}:{:02}", left / 3600, left / 60 % 60);
  if (left % 60 == 0 && part == 0) return text;
  text += fmt::format(":{:02}", left % 60);
  if (part == 0) return text;
  text += fmt::format(".{:06}", part);
  return text.substr(0, text.find_last_not_of('0') + 1);
}

Clock::Clock(std::vector<double> times, bool dates) : times_(std::move(times)), dates_(dates) {
  for (const double time : times_) with_time_ |= dates && std::fmod(time, kDay) != 0;
  std::vector<double> apart;
  for (size_t i = 1; i < times_.size(); ++i) apart.push_back(times_[i] - times_[i - 1]);
  if (apart.empty()) return;
  std::nth_element(apart.begin(), apart.begin() + int64_t(apart.size() / 2), apart.end());
  step_ = apart[apart.size() / 2];
  // The difference of two doubles, which hold a date's seconds to about a quarter of a microsecond.
  if (dates && step_ * kMicro >= 1) step_ = std::round(step_ * kMicro) / kMicro;
  with_time_ |= dates && std::fmod(step_, kDay) != 0;
  if (!dates || with_time_) return;
  day_ = common_day(times_);
  if (day_ > 0) months_ = common_months(times_);
}

/// The time so many rows behind the last.
double Clock::behind(int64_t rows) const {
  if (months_ == 0) return times_.back() + step_ * double(rows);
  const int64_t months = months_of(day_of(times_.back())) + months_ * rows;
  year_month_day date{year(int(months / 12)), month(unsigned(months % 12 + 1)), day(1)};
  date = date.year() / date.month() / std::min(day(day_), last_day_of(date));
  return kDay * double(sys_days(date).time_since_epoch().count());
}

std::string Clock::at(int64_t row) const {
  if (times_.empty()) return std::to_string(row + 1);
  const auto rows = int64_t(times_.size());
  const double time = row < rows ? times_[size_t(row)] : behind(row - rows + 1);
  return dates_ ? format_date(time, with_time_) : fmt::format("{:.12g}", time);
}

}  // namespace deq
