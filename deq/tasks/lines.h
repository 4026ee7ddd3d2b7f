// The lines of a text file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace deq {

/// Calls `use(line, number)` for each line, numbered from 1, without its end, LF or CRLF; a byte
/// order mark is passed over.
void for_each_line(std::string_view text,
                   const std::function<void(std::string_view line, int64_t number)>& use);

/// Whether nothing but white space stands in a line.
bool is_blank(std::string_view line);

/// Throws deq::Error, with source and line, for NUL and for what is not UTF-8.
void check_text(std::string_view text, const std::string& source);

}  // namespace deq
