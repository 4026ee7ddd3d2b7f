// UTF-8, strictly: what a text task accepts, and where it stops being text.
#pragma once

#include <cstddef>
#include <string_view>

namespace deq {

/// The length in bytes (1 to 4) of the well-formed UTF-8 sequence at text[at], or 0 when there is
/// none: a stray continuation, an overlong form, a surrogate, beyond U+10FFFF, or cut off.
size_t utf8_length(std::string_view text, size_t at);

/// The offset of the first byte that is no part of well-formed UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

/// The text behind a byte order mark, with which some editors begin a file.
std::string_view without_mark(std::string_view text);

}  // namespace deq
