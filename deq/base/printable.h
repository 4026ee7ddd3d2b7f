// Text from a file or a user, made fit for a one-line error message.
#pragma once

#include <string>
#include <string_view>

namespace deq {

/// `text` with control characters and quotes escaped, bytes that are not UTF-8 replaced, and
/// everything beyond `limit` bytes left out ("...").
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace deq
