// What every page has around what it says: its head, its style, its heading.
#pragma once

#include <string>

namespace deq {

/// `start` is the page's first lines, `title` text, `body` HTML.
std::string framed_page(const std::string& start, const std::string& title,
                        const std::string& body);

}  // namespace deq
