// Series of real values from a CSV file.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "deq/data/times.h"

namespace deq {

/// Rows in time order.
struct SeriesTable {
  std::vector<std::string> columns;  ///< names
  at::Tensor values;                 ///< (rows, columns) double; NaN where a value is missing
  Clock clock;
  std::string source;  ///< where it is from, for messages
};

/// What of a table is wanted.
struct TableRule {
  std::vector<std::string> columns = {};  ///< in this order; none: all but the time's
  /// The name of the column of times; "": the one called time, date, datetime or timestamp (in any
  /// case), or else the first column where each of its cells is a date; "none": there is none.
  std::string time = {};
};

/// Comma-separated values (RFC 4180: quotes, CRLF; also separated by ';' or tabs where the first
/// line has no comma), the names of the columns in the first line. A value is a finite number; a
/// cell that is empty, or nan, na, null or none in any case, is missing. Blank lines are passed
/// over; but in a table of one column, where rows follow, one is a missing value.
///
/// Throws deq::Error, with source, line, column, value and what was expected: for text in a
/// number's place, infinity, rows of another length than the first, unnamed columns, names that are
/// not UTF-8 or have control characters (line breaks too), two columns of one name, one that is not
/// there, and times that do not rise.
SeriesTable read_table(std::string_view text, const std::string& source,
                       const TableRule& rule = {});
SeriesTable read_table(const std::filesystem::path& file, const TableRule& rule = {});

/// Names between commas.
std::vector<std::string> split_names(const std::string& names);

}  // namespace deq
