#include "deq/tasks/lines.h"

#include <algorithm>

#include "deq/base/utf8.h"
#include "deq/tasks/written.h"

namespace deq {

void for_each_line(std::string_view text,
                   const std::function<void(std::string_view, int64_t)>& use) {
  text = without_mark(text);
  int64_t number = 0;
  for (size_t first = 0; first < text.size();) {
    const size_t end = std::min(text.find('\n', first), text.size());
    std::string_view line = text.substr(first, end - first);
    first = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    use(line, ++number);
  }
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\v\f\r") == std::string_view::npos;
}

void check_text(std::string_view text, const std::string& source) {
  const size_t zero = text.find('\0'), bad = std::min(zero, find_invalid_utf8(text));
  DEQ_CHECK(bad == text.npos, "{}: byte 0x{:02x}; expected UTF-8 text{}",
            at_line(source, 1 + std::count(text.begin(), text.begin() + int64_t(bad), '\n')),
            static_cast<unsigned char>(text[bad]), bad == zero ? ", not binary or UTF-16" : "");
}

}  // namespace deq
