// Times as they stand in tables: ISO 8601 dates, or plain numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace deq {

/// Seconds since 1970-01-01 of "2020-01-31", "2020-01-31T06:00", "2020-01-31 06:00:00.5", with "Z"
/// or an offset such as "+01:00" behind it where there is a time of day; without one it is taken
/// for UTC. Nothing for what is none of these, and for days and hours that there are not.
std::optional<double> parse_date(std::string_view text);

/// The reverse, in UTC: the day alone where `with_time` is false, seconds only where there are any,
/// with their parts to the nearest microsecond.
std::string format_date(double seconds, bool with_time);

/// How the rows of a table follow each other in time.
class Clock {
 public:
  /// Rows that are numbered from 1.
  Clock() = default;
  /// `dates`: seconds, or plain numbers; rising. At least one.
  Clock(std::vector<double> times, bool dates);

  /// Of row i, as text; of one behind the last row too, which follows at the rows' usual distance:
  /// the median of theirs, or so many months where all stand on the same day of a month (the
  /// last day of months that are too short), or each on the last day of its month.
  std::string at(int64_t row) const;
  /// Whether rows have times.
  bool known() const { return !times_.empty(); }

 private:
  double behind(int64_t rows) const;

  std::vector<double> times_;
  bool dates_ = false, with_time_ = false;
  double step_ = 1;
  int64_t months_ = 0;  // of the step; 0: it is no month
  unsigned day_ = 0;    // of a month, or its last where it is shorter
};

}  // namespace deq
