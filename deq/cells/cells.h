// The list of cells. To add one: its file, and its options' name in this variant.
#pragma once

#include <variant>

#include "deq/cells/transformer.h"

namespace deq {

using CellOptions = std::variant<Transformer>;

inline std::shared_ptr<Cell> make_cell(const CellOptions& options) {
  return std::visit([](const auto& cell) { return cell.make(); }, options);
}

}  // namespace deq
