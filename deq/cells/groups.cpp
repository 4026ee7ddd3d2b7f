#include "deq/cells/groups.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <map>

#include "deq/base/printable.h"

namespace deq {

using at::Tensor;
using ops::Grouping;

namespace {

std::vector<std::string> pieces(const std::string& text, char between) {
  std::vector<std::string> found;
  for (size_t first = 0; first <= text.size();) {
    const size_t end = std::min(text.find(between, first), text.size());
    found.push_back(text.substr(first, end - first));
    first = end + 1;
  }
  return found;
}

bool is_drawn(const std::string& kind) { return kind.find('/') != std::string::npos; }

void check_kind(const std::string& kind) {
  if (is_drawn(kind)) return;
  for (const char* known : {"row", "column", "box", "all"}) {
    if (kind == known) return;
  }
  throw Error(fmt::format(
      "cell-groups: unknown kind '{}'; known: row, column, box, all, or a drawing as aabb/aabb",
      printable(kind)));
}

/// A character for each group, '.' for none.
Grouping drawn(const std::string& drawing, at::IntArrayRef extents) {
  Grouping found;
  std::map<char, int64_t> groups;
  const auto rows = pieces(drawing, '/');
  for (const std::string& row : rows) {
    DEQ_CHECK(extents.size() == 2 && int64_t(rows.size()) == extents[0] &&
                  int64_t(row.size()) == extents[1],
              "cell-groups: a drawing of {} rows, one of {} places; expected one of [{}]",
              rows.size(), row.size(), fmt::join(extents, ", "));
    for (const char each : row)
      found.group.push_back(
          each == '.' ? -1 : groups.emplace(each, int64_t(groups.size())).first->second);
  }
  found.count = int64_t(groups.size());
  return found;
}

Grouping named(const std::string& kind, at::IntArrayRef extents) {
  DEQ_CHECK(kind == "all" || extents.size() == 2,
            "cell-groups: kind '{}' of a sequence; expected all, or a grid", kind);
  const int64_t H = extents.size() == 2 ? extents[0] : 1, W = extents.back();
  const auto side = int64_t(std::lround(std::sqrt(double(H))));
  DEQ_CHECK(kind != "box" || (H == W && side * side == H),
            "cell-groups: boxes of a grid of {} x {}; expected 4 x 4, 9 x 9, 16 x 16, ...", H, W);
  Grouping found;
  found.count = kind == "row" ? H : kind == "column" ? W : kind == "box" ? H : 1;
  for (int64_t i = 0; i < H; ++i) {
    for (int64_t j = 0; j < W; ++j)
      found.group.push_back(kind == "row"      ? i
                            : kind == "column" ? j
                            : kind == "box"    ? i / side * side + j / side
                                               : 0);
  }
  return found;
}

}  // namespace

std::vector<std::vector<Grouping>> make_groupings(const std::string& kinds,
                                                  at::IntArrayRef extents) {
  std::vector<std::vector<Grouping>> all;
  for (const std::string& shared : pieces(kinds, ',')) {
    all.emplace_back();
    for (const std::string& kind : pieces(shared, '+')) {
      check_kind(kind);
      all.back().push_back(is_drawn(kind) ? drawn(kind, extents) : named(kind, extents));
    }
  }
  return all;
}

size_t count_of_kinds(const std::string& kinds) {
  const std::vector<std::string> all = pieces(kinds, ',');
  for (const std::string& shared : all) {
    for (const std::string& kind : pieces(shared, '+')) check_kind(kind);
  }
  return all.size();
}

std::shared_ptr<Cell> Groups::make(const CellPlace& place) const {
  return std::make_shared<GroupsCell>(*this, place.symbols);
}

GroupsCell::GroupsCell(const Groups& options, int64_t symbols)
    : options_(options), symbols_(symbols) {
  validate(options, "Groups");
  DEQ_CHECK(symbols >= 1, "GroupsCell: {} symbols; expected those that are answered among",
            symbols);
  const int64_t w = options.width, I = options.inner;
  inject_ = register_module("inject", std::make_shared<Linear>(w, I, true, false));
  state_ = register_module("state", std::make_shared<Linear>(w, I, false, false));
  place_ = register_module("place", std::make_shared<Linear>(w, I, false, false));
  for (size_t k = 0; k < count_of_kinds(options.groups); ++k)
    kinds_.push_back(
        register_module("kind" + std::to_string(k), std::make_shared<Linear>(w, I, false, false)));
  output_ = register_module("output", std::make_shared<Linear>(I, w, false, false));
  initialise(0.02);
}

void GroupsCell::initialise(double std) {
  for (const auto& linear : {inject_, state_, place_, output_}) linear->initialise(std);
  for (const auto& linear : kinds_) linear->initialise(std);
}

double GroupsCell::operations(int64_t batch, int64_t positions, int64_t) const {
  const auto side = int64_t(std::lround(std::sqrt(double(positions))));
  const bool square = side * side == positions;
  if (!square && options_.groups != "all") return std::numeric_limits<double>::quiet_NaN();
  const std::vector<int64_t> extents =
      square ? std::vector<int64_t>{side, side} : std::vector<int64_t>{positions};
  int64_t rows = positions + 2 * positions * symbols_;  // of places, states and units
  for (const auto& shared : make_groupings(options_.groups, extents)) {
    for (const Grouping& grouping : shared) rows += grouping.count * symbols_;
  }
  return 2.0 * double(batch * rows) * double(options_.width * options_.inner);
}

std::vector<Bound> GroupsCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  const int64_t w = options_.width;
  DEQ_CHECK((x.dim() == 3 || x.dim() == 4) && x.size(-1) == input_width(),
            "GroupsCell: x has shape [{}]; expected (batch, positions, {}) or (batch, rows, "
            "columns, {}), {} features of {} symbols",
            fmt::join(x.sizes(), ", "), input_width(), input_width(), w, symbols_);
  for (const History& history : levels)
    DEQ_CHECK(history.length() == 0,
              "GroupsCell: a history of {} positions; expected none: problems stand alone",
              history.length());
  ops::GroupContext context;
  context.own = state_->weight();
  context.place = place_->weight();
  context.output = output_->weight();
  std::vector<Tensor> kinds;
  for (const auto& kind : kinds_) kinds.push_back(kind->weight());
  context.kinds = at::stack(kinds);
  context.injected =
      at::linear(x.reshape({x.size(0), -1, symbols_, w}), inject_->weight(), inject_->bias());
  context.groupings = make_groupings(options_.groups, x.sizes().slice(1, size_t(x.dim()) - 2));
  const ops::GroupStep step(std::move(context));
  std::vector<Bound> bound(levels.size());
  for (Bound& f : bound) {
    f.f = step.map();
    f.extend = [](const Tensor&, int64_t) { return History{}; };
  }
  return bound;
}

}  // namespace deq
