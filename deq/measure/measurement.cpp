#include "deq/measure/measurement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace deq {

std::string markdown(const Measurement& found) {
  std::string out = fmt::format("| {} |\n|", fmt::join(found.columns, " | "));
  for (size_t i = 0; i < found.columns.size(); ++i) out += "---|";
  out += "\n";
  for (const auto& row : found.rows) out += fmt::format("| {} |\n", fmt::join(row, " | "));
  return out;
}

}  // namespace deq
