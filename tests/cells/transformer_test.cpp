// The cell's contract: shapes, causality, history, masks, and gradients by finite differences.
#include "deq/cells/transformer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

Transformer small(NormPlace norm, bool normed) {
  Transformer options;
  options.width = 8;
  options.heads = 2;
  options.inner = 12;
  options.norm = norm;
  options.weight_norm = normed;
  return options;
}

struct Made {
  TransformerCell cell;
  Tensor x, z;
  History history;

  explicit Made(const Transformer& options, int64_t M = 3) : cell(options) {
    at::manual_seed(6);
    cell.initialise(0.4);
    cell.to(at::kDouble);
    cell.eval();
    x = at::randn({2, 5, 8}, at::kDouble);
    z = at::randn({2, 5, 8}, at::kDouble);
    if (M > 0) history = {at::randn({2, M, 8}, at::kDouble), at::randn({2, M, 8}, at::kDouble)};
  }
};

TEST(TransformerCell, NothingOfTheFutureReachesThePast) {
  for (const NormPlace norm : {NormPlace::Post, NormPlace::Pre, NormPlace::PrePublished}) {
    Made m(small(norm, true));
    const Tensor before = m.cell.bind(m.x, m.history)(m.z);
    Tensor x = m.x.clone(), z = m.z.clone();
    x.select(1, 4).add_(at::randn({8}, at::kDouble));
    z.select(1, 4).add_(at::randn({8}, at::kDouble));
    const Tensor after = m.cell.bind(x, m.history)(z);
    EXPECT_TRUE(at::equal(before.narrow(1, 0, 4), after.narrow(1, 0, 4)));
    EXPECT_FALSE(at::equal(before.select(1, 4), after.select(1, 4)));
    Transformer open = small(norm, true);
    open.causal = false;
    Made other(open);
    const Tensor a = other.cell.bind(other.x, other.history)(other.z);
    EXPECT_FALSE(
        at::equal(a.select(1, 0), other.cell.bind(other.x, other.history)(z).select(1, 0)));
  }
}

TEST(TransformerCell, WhatIsKeptInEvaluationFollowsTheParameters) {
  Made m(small(NormPlace::Post, true));
  const auto kept = [&](int64_t length) {
    c10::NoGradGuard no_tape;
    return m.cell.bind(m.x.narrow(1, 0, length), m.history)(m.z.narrow(1, 0, length));
  };
  const auto fresh = [&](int64_t length) {  // with a tape nothing is kept
    return m.cell.bind(m.x.narrow(1, 0, length), m.history)(m.z.narrow(1, 0, length)).detach();
  };
  for (auto& item : m.cell.named_parameters()) {
    kept(5);
    {
      c10::NoGradGuard no_tape;
      item.value().add_(at::randn_like(item.value()), 0.3);
    }
    for (const int64_t length : {5, 2})
      EXPECT_TRUE(at::allclose(kept(length), fresh(length), 1e-12, 1e-12)) << item.key();
  }
  m.cell.to(at::kFloat);
  m.x = m.x.to(at::kFloat);
  m.z = m.z.to(at::kFloat);
  m.history = {m.history.z.to(at::kFloat), m.history.x.to(at::kFloat)};
  EXPECT_TRUE(at::allclose(kept(5), fresh(5), 1e-5, 1e-5));
}

TEST(TransformerCell, TheWindowHidesWhatIsFurtherAway) {
  Transformer options = small(NormPlace::Post, false);
  options.window = 2;
  Made m(options);
  const Tensor before = m.cell.bind(m.x, m.history)(m.z);
  Tensor z = m.z.clone();
  z.select(1, 1).add_(1);
  const Tensor after = m.cell.bind(m.x, m.history)(z);
  for (const int64_t t : {0, 3, 4})
    EXPECT_TRUE(at::equal(before.select(1, t), after.select(1, t))) << t;
  for (const int64_t t : {1, 2})
    EXPECT_FALSE(at::equal(before.select(1, t), after.select(1, t))) << t;
}

TEST(TransformerCell, MasksAreDrawnOncePerBinding) {
  Transformer options = small(NormPlace::Post, true);
  options.dropout = {.hidden = 0.4, .attention = 0.3};
  Made m(options);
  EXPECT_TRUE(at::equal(m.cell.bind(m.x, m.history)(m.z), m.cell.bind(m.x, m.history)(m.z)));
  m.cell.train();
  const Map f = m.cell.bind(m.x, m.history);
  EXPECT_TRUE(at::equal(f(m.z), f(m.z)));
  EXPECT_FALSE(at::equal(f(m.z), m.cell.bind(m.x, m.history)(m.z)));
}

/// A cell over grids of weights drawn from one seed.
struct OnGrids {
  TransformerCell cell;
  explicit OnGrids(bool normed = true) : cell(options(normed)) {
    at::manual_seed(6);
    cell.initialise(0.6);
    cell.to(at::kDouble);
    cell.eval();
  }
  static Transformer options(bool normed) {
    Transformer options = small(NormPlace::Post, normed);
    options.dimensions = 2;
    options.causal = false;
    return options;
  }
};

TEST(TransformerCell, RowsAndColumnsOfAGridStandForEachOther) {
  for (const bool normed : {false, true}) {
    OnGrids one(normed), other(normed);
    c10::NoGradGuard no_tape;
    for (const auto& item : other.cell.named_parameters()) {  // the halves of the sinusoids
      if (item.key() != (normed ? "positions.v" : "positions.weight")) continue;
      const auto halves = item.value().clone().chunk(2, 1);
      item.value().copy_(at::cat({halves[1], halves[0]}, 1));
    }
    const Tensor x = at::randn({2, 3, 5, 8}, at::kDouble), z = at::randn_like(x);
    const auto turned = [](const Tensor& t) { return t.transpose(1, 2).contiguous(); };
    const Tensor f = one.cell.bind(x, {})(z);
    const Tensor g = other.cell.bind(turned(x), {})(turned(z));
    EXPECT_LT((turned(f) - g).abs().max().item<double>(), 1e-12);
    EXPECT_GT((turned(f) - one.cell.bind(turned(x), {})(turned(z))).abs().max().item<double>(),
              1e-3);
  }
}

TEST(TransformerCell, GridsHaveNoOrderAndNoHistory) {
  OnGrids grids;
  const Tensor x = at::zeros({1, 2, 3, 8}, at::kDouble);
  EXPECT_SAYS(testing::error_of([&] { grids.cell.bind(x[0], {}); }),
              "expected (batch, rows, columns, 8)");
  EXPECT_SAYS(testing::error_of([&] {
                grids.cell.bind(x, {at::zeros({1, 1, 8}), at::zeros({1, 1, 8})});
              }),
              "a history of 1 positions; expected none");
  Transformer ordered = OnGrids::options(true);
  ordered.causal = true;
  EXPECT_SAYS(testing::error_of([&] { TransformerCell{ordered}; }), "cell-causal = true");
}

TEST(TransformerCell, RefusesWidthsThatDoNotFit) {
  EXPECT_THROW(TransformerCell(Transformer{.width = 9, .heads = 3}), Error);
  EXPECT_THROW(TransformerCell(Transformer{.width = 8, .heads = 3}), Error);
}

}  // namespace
}  // namespace deq
