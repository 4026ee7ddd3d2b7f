#include "deq/base/printable.h"

#include <nlohmann/json.hpp>

namespace deq {

std::string printable(std::string_view text, size_t limit) {
  size_t kept = text.size();
  if (kept > limit) {
    kept = limit;
    while (kept > 0 && (static_cast<unsigned char>(text[kept]) & 0xC0) == 0x80) --kept;
  }
  using Json = nlohmann::json;
  std::string shown =
      Json(text.substr(0, kept)).dump(-1, ' ', false, Json::error_handler_t::replace);
  shown = shown.substr(1, shown.size() - 2);  // without the quotes
  return kept < text.size() ? shown + "..." : shown;
}

}  // namespace deq
