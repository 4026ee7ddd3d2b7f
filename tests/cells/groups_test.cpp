#include "deq/cells/groups.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "deq/heads/symbols.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

constexpr int64_t kWidth = 5;

/// A cell, and what reads and answers with it, of a board of n x n places and n symbols.
struct Network {
  explicit Network(int64_t n, const std::string& groups = "row+column,box")
      : cell({.width = kWidth, .inner = 7, .groups = groups}, n),
        reader(n, kWidth),
        head(n, kWidth) {
    at::manual_seed(3);  // of any size the same weights
    cell.initialise(0.5);
    reader.initialise(1);
    head.initialise(1);
    cell.to(at::kDouble);
    reader.to(at::kDouble);
    for (const auto& [name, part] : head.parts()) part->to(at::kDouble);
  }

  /// log p (n, n, symbols) after a few evaluations from zero, of tokens (n, n).
  Tensor answer(const Tensor& tokens) {
    c10::NoGradGuard no_tape;
    const int64_t n = tokens.size(0);
    const Tensor x = reader.forward(tokens.view({1, n * n})).view({1, n, n, -1});
    const Bound f = cell.bind(x, {});
    Tensor z = at::zeros({1, n, n, cell.state_width()}, at::kDouble);
    for (int step = 0; step < 6; ++step) z = f(z);
    return head.log_probabilities(z.flatten(1, 2)).view({n, n, -1});
  }

  GroupsCell cell;
  SymbolReader reader;
  SymbolHead head;
};

Tensor board(int64_t n, int seed) {
  at::manual_seed(uint64_t(seed));
  return at::randint(0, n + 1, {n, n}, at::kLong) * at::rand({n, n}).lt(0.6);
}

double apart(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

/// 0 .. n - 1 exchanged within bands of b, and the bands.
Tensor exchanged(int64_t b, std::mt19937& random) {
  std::vector<int64_t> bands(static_cast<size_t>(b)), order;
  std::iota(bands.begin(), bands.end(), 0);
  std::shuffle(bands.begin(), bands.end(), random);
  for (const int64_t band : bands) {
    std::vector<int64_t> rows(static_cast<size_t>(b));
    std::iota(rows.begin(), rows.end(), band * b);
    std::shuffle(rows.begin(), rows.end(), random);
    order.insert(order.end(), rows.begin(), rows.end());
  }
  return at::tensor(order, at::kLong);
}

TEST(Groups, HaveTheSymmetriesOfSudoku) {
  std::mt19937 random(5);
  for (const int64_t b : {2, 3}) {
    const int64_t n = b * b;
    Network network(n);
    for (int trial = 0; trial < 5; ++trial) {
      const Tensor tokens = board(n, trial), plain = network.answer(tokens);
      EXPECT_GT(plain.std().item<double>(), 0.1);
      const Tensor rows = exchanged(b, random), columns = exchanged(b, random);
      const auto moved = [&](const Tensor& t) {
        return t.index_select(0, rows).index_select(1, columns);
      };
      EXPECT_LT(apart(network.answer(moved(tokens)), moved(plain)), 1e-10) << "bands";
      EXPECT_LT(apart(network.answer(tokens.t().contiguous()), plain.transpose(0, 1)), 1e-10);
      std::vector<int64_t> names(static_cast<size_t>(n));
      std::iota(names.begin(), names.end(), 1);
      std::shuffle(names.begin(), names.end(), random);
      const Tensor renamed = at::tensor(names, at::kLong);  // of symbol s, its new token
      const Tensor table = at::cat({at::zeros({1}, at::kLong), renamed});
      EXPECT_LT(apart(network.answer(table.index({tokens})).index_select(2, renamed - 1), plain),
                1e-10)
          << "symbols";
    }
    // Rows of different bands are no symmetry.
    const Tensor tokens = board(n, 9);
    Tensor order = at::arange(n, at::kLong);
    order[0] = n - 1;
    order[n - 1] = 0;
    EXPECT_GT(apart(network.answer(tokens.index_select(0, order)),
                    network.answer(tokens).index_select(0, order)),
              1e-3);
  }
}

TEST(Groups, KindsOfTheirOwnTellRowsFromColumns) {
  Network network(4, "row,column,box");
  const Tensor tokens = board(4, 1);
  EXPECT_GT(apart(network.answer(tokens.t().contiguous()), network.answer(tokens).transpose(0, 1)),
            1e-3);
}

TEST(Groups, HaveTheFormulaOfTheirDocumentation) {
  Network network(4);
  std::map<std::string, Tensor> p;
  for (const auto& item : network.cell.named_parameters()) p[item.key()] = item.value();
  at::manual_seed(8);
  const Tensor x = at::randn({2, 4, 4, 4, kWidth}, at::kDouble), z = at::randn_like(x);
  c10::NoGradGuard no_tape;
  const Tensor f = network.cell.bind(x.flatten(3), {})(z.flatten(3)).view(z.sizes());
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      for (int64_t s = 0; s < 4; ++s) {
        const auto at = [&](const Tensor& t, int64_t r, int64_t c) {
          return t.select(1, r).select(1, c).select(1, s);  // (2, w)
        };
        Tensor row = at::zeros({2, kWidth}, at::kDouble), column = row.clone(), box = row.clone();
        for (int64_t k = 0; k < 4; ++k) {
          row += at(z, i, k) / 4;
          column += at(z, k, j) / 4;
          box += at(z, i / 2 * 2 + k / 2, j / 2 * 2 + k % 2) / 4;
        }
        const Tensor h =
            (at::matmul(at(z, i, j), p.at("state.weight").t()) +
             at::matmul(z.select(1, i).select(1, j).mean(1), p.at("place.weight").t()) +
             at::matmul(row + column, p.at("kind0.weight").t()) +
             at::matmul(box, p.at("kind1.weight").t()) +
             at::matmul(at(x, i, j), p.at("inject.weight").t()) + p.at("inject.bias"))
                .relu();
        const Tensor y = at(z, i, j) + at::matmul(h, p.at("output.weight").t());
        EXPECT_LT(apart(at(f, i, j), y / (y.square().mean(1, true) + 1e-6).sqrt()), 1e-12);
      }
    }
  }
}

TEST(Groups, AreDrawnOrNamed) {
  const auto drawn = make_groupings("row+column,aabb/aabb/ccdd/ccdd", {4, 4});
  const auto named = make_groupings("row+column,box", {4, 4});
  ASSERT_EQ(drawn.size(), 2u);
  EXPECT_EQ(drawn[0].size(), 2u);
  EXPECT_EQ(drawn[1][0].group, named[1][0].group);
  EXPECT_EQ(drawn[1][0].count, 4);
  const auto part = make_groupings("a..a/bb..", {2, 4})[0][0];
  EXPECT_EQ(part.group, (std::vector<int64_t>{0, -1, -1, 0, 1, 1, -1, -1}));
  EXPECT_EQ(make_groupings("all", {6})[0][0].count, 1);
  const auto error = [](const char* kinds, at::IntArrayRef extents) {
    return error_of([&] { make_groupings(kinds, extents); });
  };
  EXPECT_SAYS(error("ring", {4, 4}), "unknown kind 'ring'; known: row, column, box, all");
  EXPECT_SAYS(error("box", {6, 6}), "boxes of a grid of 6 x 6; expected 4 x 4, 9 x 9");
  EXPECT_SAYS(error("row", {6}), "kind 'row' of a sequence");
  EXPECT_SAYS(error("aab/aab", {2, 4}),
              "a drawing of 2 rows, one of 3 places; expected one of [2, 4]");
}

TEST(Groups, CountTheirProducts) {
  const GroupsCell cell({.width = 5, .inner = 7}, 9);
  // States and units of 81 places and 9 symbols, 81 places, and 3 times 9 groups of 9 symbols.
  EXPECT_EQ(cell.operations(2, 81, 0), 2.0 * 2 * (5 * 7) * (2 * 729 + 81 + 3 * 81));
  EXPECT_TRUE(std::isnan(cell.operations(1, 12, 0)));
  EXPECT_EQ(GroupsCell({.width = 5, .inner = 7, .groups = "all"}, 3).operations(1, 12, 0),
            2.0 * (5 * 7) * (2 * 36 + 12 + 3));
}

TEST(Groups, RefuseWhatTheyCannotTake) {
  EXPECT_SAYS(error_of([] { GroupsCell({}, 0); }), "0 symbols");
  EXPECT_SAYS(error_of([] { GroupsCell({.groups = "row,ring"}, 4); }), "unknown kind 'ring'");
  GroupsCell cell({.width = 2}, 4);
  EXPECT_SAYS(error_of([&] { cell.bind(at::zeros({1, 4, 4, 6}), {}); }), "[1, 4, 4, 6]; expected");
}

TEST(SymbolReader, KnowsBlanksWhatIsGivenAndWhatIsNot) {
  SymbolReader reader(3, 2);
  reader.initialise(1);
  c10::NoGradGuard no_tape;
  const Tensor x = reader.forward(at::tensor({0, 2}, at::kLong).view({1, 2})).view({2, 3, 2});
  const Tensor kinds = reader.parameters()[0];
  for (int64_t s = 0; s < 3; ++s) {
    EXPECT_TRUE(at::equal(x[0][s], kinds[0]));
    EXPECT_TRUE(at::equal(x[1][s], kinds[s == 1 ? 1 : 2]));
  }
}

TEST(SymbolHead, LossIsOfTheAnswer) {
  SymbolHead head(4, 3);
  head.initialise(1);
  const Tensor z = at::randn({2, 5, 12}), target = at::randint(0, 4, {2, 5}, at::kLong);
  const Tensor all = head.log_probabilities(z);
  EXPECT_LT(apart(all.exp().sum(2), at::ones({2, 5})), 1e-5);
  EXPECT_LT(apart(head.loss(z, target), -all.gather(2, target.unsqueeze(2)).squeeze(2)), 1e-6);
}

}  // namespace
}  // namespace deq
