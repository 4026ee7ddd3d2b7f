// The list of cells. To add one: its file, and its options' name in this variant.
#pragma once

#include <variant>

#include "deq/cells/recurrent.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"

namespace deq {

using CellOptions = std::variant<Transformer, TrellisNet, Lstm, Gru, Tcn>;

inline std::shared_ptr<Cell> make_cell(const CellOptions& options, const CellPlace& place = {}) {
  return std::visit([&](const auto& cell) { return cell.make(place); }, options);
}
/// Whether the cell will be causal.
inline bool is_causal(const CellOptions& options) {
  return std::visit(
      [](const auto& cell) {
        if constexpr (requires { cell.causal; }) return cell.causal;
        return true;
      },
      options);
}
inline const char* cell_name(const CellOptions& options) {
  return std::visit([](const auto& cell) { return cell.name; }, options);
}

}  // namespace deq
