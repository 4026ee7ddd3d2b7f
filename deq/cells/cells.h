// A cell is made by an options struct; those with names are listed in cells.cpp. To add one: its
// file, and its line there.
#pragma once

#include "deq/base/choice.h"
#include "deq/cells/cell.h"

namespace deq {

/// What a cell's options can do.
struct CellMaker : Held<CellMaker> {
  template <class Options>
  struct Of;
  static const std::vector<Choice<CellMaker>>& known();

  /// Throws deq::Error for options out of range.
  virtual std::shared_ptr<Cell> make(const CellPlace& place) const = 0;
  /// As the cell's causal().
  virtual bool is_causal() const = 0;
  /// Tells a cell that has both what its places are: 1, a sequence; 2, a grid, which has no order.
  virtual void set_dimensions(int64_t dimensions) = 0;
  /// Whether its places may be a grid: where it can be told, and where it says `grids`.
  virtual bool takes_grids() const = 0;
};

/// One of the cells; Transformer unless told otherwise.
using CellOptions = Choice<CellMaker>;

template <class Options>
struct CellMaker::Of final : HeldAs<CellMaker, Options> {
  using HeldAs<CellMaker, Options>::HeldAs;
  std::shared_ptr<Cell> make(const CellPlace& place) const override {
    return this->value.make(place);
  }
  bool is_causal() const override { return this->value.is_causal(); }
  void set_dimensions(int64_t dimensions) override {
    if constexpr (requires { this->value.dimensions; }) this->value.dimensions = dimensions;
    if constexpr (requires { this->value.dimensions, this->value.causal; })
      this->value.causal = this->value.causal && dimensions == 1;
  }
  bool takes_grids() const override {
    return requires { this->value.dimensions; }
    || requires { Options::grids; };
  }
};

inline std::shared_ptr<Cell> make_cell(const CellOptions& options, const CellPlace& place = {}) {
  return options->make(place);
}

}  // namespace deq
