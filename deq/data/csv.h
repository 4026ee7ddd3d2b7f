#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace deq {

/// One record of a CSV text.
struct CsvRow {
  std::vector<std::string> cells;  ///< without quotes and without spaces around them
  int64_t line = 1;                ///< where it begins, from 1
};

/// Cells separated by commas, or by ';' or tabs where the first line has no comma; RFC 4180's
/// quotes; lines may end with CRLF, and the text may begin with a byte order mark. Blank lines are
/// left out; but where the first record has one cell, one with records before and behind it is an
/// empty cell. Throws deq::Error, with source and line, for a quote that is not closed.
std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source);

/// A cell as it stands in a CSV file: in quotes where it needs them.
std::string csv_cell(const std::string& text);

}  // namespace deq
