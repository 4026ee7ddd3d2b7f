#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cell.h"
#include "deq/cells/linear.h"
#include "deq/ops/group_step.h"

namespace deq {

/// One state for each place p and symbol s, all of them by the same map, which hears of others by
/// means over groups:
///
///     h = relu(W z_{p,s} + W' mean_{s'} z_{p,s'} + sum_k W_k mean_{q in k(p)} z_{q,s} + U x + b)
///     f(z)_{p,s} = N(z_{p,s} + A h)
///
/// N an RMS norm without weights, k(p) the group of kind k that p is in: a row, a column, a box. No
/// weight knows a symbol, a place or how many of each there are: renamed symbols, and places that
/// are exchanged such that groups stay groups, give the answer exchanged alike, and one set of
/// weights runs on boards of any size. Where the answer is one symbol for each place, as of Sudoku,
/// this is a network on the graph of its constraints (Palm, Paquet, Winther 2018), with means over
/// groups for messages between pairs, and one state a symbol for one-hot features.
///
/// `groups` names the kinds: row, column, box (of a square of squares), all; or draws one, its rows
/// joined by '/', a character for each group and '.' for no group: aabb/aabb/ccdd/ccdd. Kinds that
/// are joined by '+' share W_k, and then swapping them changes no answer.
struct Groups {
  static constexpr const char* name = "groups";
  static constexpr bool grids = true;
  int64_t width = 16;
  int64_t inner = 64;
  std::string groups = "row+column,box";

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "w, features of a place and symbol", between(1, 1 << 16));
    field("inner", self.inner, "units of h", between(1, 1 << 20));
    field("groups", self.groups,
          "kinds of groups: row, column, box, all, or drawn; '+' shares weights");
  }

  bool is_causal() const { return false; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// The groupings of places (T) or (H, W), those that share weights together. Throws deq::Error for
/// a kind that is not known, or that these places do not have.
std::vector<std::vector<ops::Grouping>> make_groupings(const std::string& kinds,
                                                       at::IntArrayRef extents);

/// How many kinds have weights of their own. Throws deq::Error for a kind that is not known.
size_t count_of_kinds(const std::string& kinds);

/// x (B, T, S X) or (B, H, W, S X) of S symbols, X = width, and states alike. Without a history:
/// problems stand alone.
class GroupsCell : public Cell {
 public:
  /// Throws deq::Error without symbols, and for kinds that nobody knows.
  GroupsCell(const Groups& options, int64_t symbols);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return false; }
  bool injects() const override { return true; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  int64_t symbols() const override { return symbols_; }
  int64_t input_width() const override { return symbols_ * options_.width; }
  int64_t state_width() const override { return symbols_ * options_.width; }

 private:
  Groups options_;
  int64_t symbols_;
  std::shared_ptr<Linear> inject_, state_, place_, output_;
  std::vector<std::shared_ptr<Linear>> kinds_;  // W_k, those that are shared once
};

}  // namespace deq
