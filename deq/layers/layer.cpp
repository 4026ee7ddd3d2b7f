#include "deq/layers/layer.h"

#include <ATen/ATen.h>

#include "deq/layers/condition.h"
#include "deq/layers/equilibrium_layer.h"
#include "deq/layers/explicit.h"

namespace deq {

using at::Tensor;

namespace {

/// A cell that does not depend on x cannot be solved, and its weights can only be shared where that
/// is asked for.
void check_depth(const DepthOptions& depth, const Cell& cell, const char* name) {
  DEQ_CHECK(depth.depth > 0 || depth.injection,
            "injection = false: f would not depend on its input; expected true, or depth >= 1");
  DEQ_CHECK(depth.depth == 0 || !dynamic_cast<const ConditionCell*>(&cell),
            "depth = {}: cell {} meets a condition of its own and is no level; expected 0",
            depth.depth, name);
  DEQ_CHECK(depth.depth > 0 || cell.injects(),
            "cell = {} is no equilibrium: it does not depend on its state; expected depth >= 1",
            name);
  DEQ_CHECK(cell.injects() || !depth.injection || !depth.tied || depth.depth <= 1,
            "tied = true: levels of {} see no input besides their state; expected tied = false, or "
            "injection = false to share weights all the same",
            name);
  DEQ_CHECK(depth.injection || !cell.injects(),
            "injection = false: levels of {} always see x; expected true", name);
  DEQ_CHECK(
      !depth.step_embedding || (depth.depth > 0 && depth.tied),
      "step-embedding = true with depth = {}, tied = {}; expected a depth >= 1 of tied levels: "
      "others need none to differ",
      depth.depth, depth.tied);
  DEQ_CHECK(depth.depth > 0 || (depth.tied && !depth.checkpointed),
            "tied = {}, checkpointed = {}: an equilibrium has one level; expected depth >= 1 with "
            "them",
            depth.tied, depth.checkpointed);
}

}  // namespace

Layer::Layer(const CellOptions& cell, const DepthOptions& depth, int64_t symbols) : depth_(depth) {
  for (int64_t level = 0; level < depth.cells(); ++level)
    cells_.push_back(make_cell(cell, CellPlace{level, depth.injection, symbols}));
  check_depth(depth, this->cell(), cell.name());
}

std::string Layer::cell_name(size_t index) const {
  return cells_.size() == 1 ? "cell" : "cell" + std::to_string(index);
}

std::vector<Bound> Layer::bind(const Tensor& x, const Histories& histories) {
  const auto levels = size_t(depth_.levels());
  DEQ_CHECK(histories.empty() || histories.size() == levels, "histories of {} levels; expected {}",
            histories.size(), levels);
  const Histories seen = histories.empty() ? Histories(levels) : histories;
  if (cells_.size() == 1) return cells_.front()->bind_levels(x, seen);
  std::vector<Bound> bound;
  for (size_t level = 0; level < levels; ++level)
    bound.push_back(cells_[level]->bind(x, seen[level]));
  return bound;
}

Tensor Layer::start(const Tensor& x, const ForwardOptions& how) const {
  if (!how.z0.defined())
    return cell().injects() ? make_start(how.start, x, cell().state_width()) : x;
  std::vector<int64_t> shape = x.sizes().vec();  // (B, T, X)
  shape.back() = cell().state_width();
  DEQ_CHECK(how.z0.sizes() == at::IntArrayRef(shape), "a start of shape [{}]; expected [{}]",
            fmt::join(how.z0.sizes(), ", "), fmt::join(shape, ", "));
  return how.z0.detach();
}

std::unique_ptr<Layer> make_layer(const CellOptions& cell, const DepthOptions& depth,
                                  int64_t symbols) {
  if (depth.depth > 0) return std::make_unique<ExplicitLayer>(cell, depth, symbols);
  if (has_condition(cell)) return std::make_unique<ConditionLayer>(cell, depth, symbols);
  return std::make_unique<EquilibriumLayer>(cell, depth, symbols);
}

}  // namespace deq
