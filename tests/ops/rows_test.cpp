#include "deq/ops/rows.h"

#include <gtest/gtest.h>

#include "deq/ops/rows_simd.h"
#include "tests/base/scratch.h"
#include "tests/problems.h"

namespace deq::ops {
namespace {

using at::Tensor;
using testing::randn;

struct Case {
  int64_t rows, n, m;
};

/// Widths about every power of two, so that each length of a vector's tail occurs.
std::vector<Case> cases() {
  std::vector<Case> all = {{1, 5000, 10}, {7, 4096, 2}, {3, 4097, 5}, {2, 8200, 3}, {300, 129, 8}};
  for (int64_t n = 1; n <= 40; ++n) all.push_back({1 + n % 4, n, 1 + n % 10});
  for (int64_t n = 60; n <= 70; ++n) all.push_back({2, n, 6});
  return all;
}

std::vector<Tensor> history(const Case& c, at::ScalarType type, uint64_t seed) {
  std::vector<Tensor> states;
  for (int64_t i = 0; i < c.m; ++i)
    states.push_back(randn({c.rows, c.n}, type, seed + uint64_t(i)));
  return states;
}

class Rows : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  double precision() const { return GetParam() == at::kFloat ? 1e-6 : 1e-14; }
};
INSTANTIATE_TEST_SUITE_P(Types, Rows, ::testing::Values(at::kFloat, at::kDouble),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(Rows, DotsAgreeWithTheReference) {
  for (const Case& c : cases()) {
    const auto states = history(c, GetParam(), 100);
    const Tensor g = randn({c.rows, c.n}, GetParam(), 99);
    const Tensor fast = row_dots(states, g), plain = row_dots_reference(states, g);
    ASSERT_EQ(fast.sizes(), (at::IntArrayRef{c.rows, c.m}));
    ASSERT_EQ(fast.scalar_type(), at::kDouble);
    // Inner products cancel: the error is relative to the norms, not to the result.
    EXPECT_LE(testing::largest(fast - plain), precision() * double(c.n)) << c.rows << " " << c.n;
  }
}

TEST_P(Rows, MixturesAgreeWithTheReference) {
  for (const Case& c : cases()) {
    const auto states = history(c, GetParam(), 200);
    const Tensor weights = randn({c.rows, c.m}, at::kDouble, 98);
    for (const Tensor& base : {Tensor(), randn({c.rows, c.n}, GetParam(), 97)}) {
      const Tensor fast = row_mix(weights, states, base);
      const Tensor plain = row_mix_reference(weights, states, base);
      ASSERT_EQ(fast.sizes(), plain.sizes());
      ASSERT_EQ(fast.scalar_type(), GetParam());
      EXPECT_LE(testing::largest(fast - plain), 20 * precision()) << c.rows << " " << c.n;
    }
  }
}

TEST_P(Rows, StepsAgreeWithTheReference) {
  for (const Case& c : cases()) {
    for (const int64_t m : {int64_t(0), c.m}) {
      const auto states = history({c.rows, c.n, m}, GetParam(), 500);
      const Tensor z = randn({c.rows, c.n}, GetParam(), 92),
                   base = randn({c.rows, c.n}, GetParam(), 91),
                   weights = randn({c.rows, m}, at::kDouble, 90);
      const RowStep fast = row_step(z, base, weights, states);
      const RowStep plain = row_step_reference(z, base, weights, states);
      EXPECT_LE(testing::largest(fast.next - plain.next), 20 * precision()) << c.rows << " " << c.n;
      EXPECT_TRUE(at::equal(fast.step, fast.next - z));
      if (m == 0) continue;
      EXPECT_LE(testing::largest(fast.dots - row_dots_reference(states, fast.step)),
                20 * precision() * double(c.n))
          << c.rows << " " << c.n;
      EXPECT_EQ(fast.dots.sizes(), plain.dots.sizes());
    }
  }
}

TEST_P(Rows, RowsThatAreLeftOutChangeNoOthers) {
  for (const Case& c : cases()) {
    const auto states = history(c, GetParam(), 250);
    const Tensor g = randn({c.rows, c.n}, GetParam(), 94);
    const Tensor weights = randn({c.rows, c.m}, at::kDouble, 93);
    const Tensor all_dots = row_dots(states, g), all_mixed = row_mix(weights, states);
    std::vector<char> out(size_t(c.rows), 0);
    for (int64_t r = 0; r < c.rows; ++r) out[size_t(r)] = char((r * 7 + c.n) % 3 == 0);
    const Tensor dots = row_dots(states, g, out), mixed = row_mix(weights, states, {}, out);
    const RowStep all_steps = row_step(g, states[0], weights, states),
                  steps = row_step(g, states[0], weights, states, out);
    for (int64_t r = 0; r < c.rows; ++r) {
      if (out[size_t(r)]) continue;
      EXPECT_TRUE(at::equal(dots[r], all_dots[r]));
      EXPECT_TRUE(at::equal(mixed[r], all_mixed[r]));
      EXPECT_TRUE(at::equal(steps.next[r], all_steps.next[r]));
      EXPECT_TRUE(at::equal(steps.step[r], all_steps.step[r]));
      EXPECT_TRUE(at::equal(steps.dots[r], all_steps.dots[r]));
    }
    const Tensor chosen = row_where(out, g, states[0]);
    for (int64_t r = 0; r < c.rows; ++r)
      EXPECT_TRUE(at::equal(chosen[r], out[size_t(r)] ? g[r] : states[0][r]));
  }
}

TEST_P(Rows, ResidualsAgreeWithTheReference) {
  for (const Case& c : cases()) {
    const Tensor z = randn({c.rows, c.n}, GetParam(), 96),
                 fz = randn({c.rows, c.n}, GetParam(), 95);
    const RowResidual fast = row_residual(z, fz), plain = row_residual_reference(z, fz);
    EXPECT_TRUE(at::equal(fast.g, plain.g));
    ASSERT_EQ(fast.norms.sizes(), (at::IntArrayRef{c.rows, 2}));
    EXPECT_TRUE(at::allclose(fast.norms, plain.norms, 10 * precision(), 0)) << c.rows << " " << c.n;
  }
}

TEST_P(Rows, ARowDoesNotDependOnTheOthers) {
  const Case c = {64, 1037, 5};
  const auto states = history(c, GetParam(), 300);
  const Tensor g = randn({c.rows, c.n}, GetParam(), 96);
  const Tensor weights = randn({c.rows, c.m}, at::kDouble, 95);
  const Tensor dots = row_dots(states, g), mixed = row_mix(weights, states, g);
  for (const int64_t r : {0, 1, 63}) {
    std::vector<Tensor> own;
    for (const Tensor& state : states) own.push_back(state.narrow(0, r, 1).contiguous());
    const Tensor own_g = g.narrow(0, r, 1).contiguous();
    EXPECT_TRUE(at::equal(row_dots(own, own_g), dots.narrow(0, r, 1)));
    EXPECT_TRUE(at::equal(row_mix(weights.narrow(0, r, 1), own, own_g), mixed.narrow(0, r, 1)));
  }
}

TEST_P(Rows, WhatIsNotFiniteStaysInItsRow) {
  const Case c = {3, 50, 4};
  auto states = history(c, GetParam(), 400);
  const Tensor g = randn({c.rows, c.n}, GetParam(), 94);
  const Tensor weights = randn({c.rows, c.m}, at::kDouble, 93);
  const Tensor dots = row_dots(states, g), mixed = row_mix(weights, states, g);
  states[2] = states[2].clone();
  states[2][1][7] = NAN;
  const Tensor bad_dots = row_dots(states, g), bad_mixed = row_mix(weights, states, g);
  EXPECT_TRUE(std::isnan(bad_dots[1][2].item<double>()));
  EXPECT_TRUE(std::isnan(bad_mixed[1][7].item<double>()));
  for (const int64_t r : {0, 2}) {
    EXPECT_TRUE(at::equal(bad_dots[r], dots[r]));
    EXPECT_TRUE(at::equal(bad_mixed[r], mixed[r]));
  }
}

TEST_P(Rows, LongRowsOfFloatsLoseNothing) {
  const Tensor ones = at::full({1, 1 << 20}, 0.1, GetParam());
  const double exact = double(1 << 20) * std::pow(ones[0][0].item<double>(), 2);
  EXPECT_NEAR(row_dots({ones}, ones).item<double>() / exact, 1,
              GetParam() == at::kFloat ? 1e-6 : 1e-14);
}

TEST_P(Rows, TinyAndHugeNumbersHaveTheirProducts) {
  for (const double scale : {1e-30, 1e-23, 1e-18, 1e-13, 1e15, 1e18, 1e25}) {
    for (const int64_t n : {1, 7, 64, 1001, 5000}) {
      const Tensor g = scale * randn({2, n}, GetParam(), 89);
      const Tensor fast = row_dots({g}, g), plain = row_dots_reference({g}, g);
      EXPECT_LE(testing::relative_error(fast, plain), precision() * double(n)) << scale << " " << n;
    }
  }
}

TEST_P(Rows, NothingToDoIsDone) {
  const Tensor g = randn({3, 4}, GetParam(), 92);
  EXPECT_EQ(row_dots({}, g).sizes(), (at::IntArrayRef{3, 0}));
  EXPECT_TRUE(at::equal(row_mix(at::empty({3, 0}, at::kDouble), {}, g), g));
  const Tensor none = at::empty({0, 4}, GetParam()), empty = at::empty({3, 0}, GetParam());
  EXPECT_EQ(row_dots({none}, none).sizes(), (at::IntArrayRef{0, 1}));
  EXPECT_TRUE(at::equal(row_dots({empty}, empty), at::zeros({3, 1}, at::kDouble)));
  EXPECT_EQ(row_mix(at::empty({0, 1}, at::kDouble), {none}).sizes(), none.sizes());
}

TEST_P(Rows, WrongArgumentsAreErrors) {
  const Tensor g = randn({4, 4}, GetParam(), 91), weights = at::ones({4, 1}, at::kDouble);
  using testing::error_of;
  EXPECT_SAYS(error_of([&] { row_dots({g.narrow(1, 0, 3)}, g); }), "[4, 3]");
  EXPECT_SAYS(error_of([&] { row_dots({g}, g.t()); }), "contiguous");
  EXPECT_SAYS(error_of([&] { row_dots({g.t()}, g.t()); }), "contiguous");
  EXPECT_SAYS(error_of([&] { row_mix(weights, {g}, g.t()); }), "contiguous");
  EXPECT_SAYS(error_of([&] { row_mix(weights, {g.t()}); }), "contiguous");
  EXPECT_SAYS(error_of([&] { row_mix(at::ones({4, 2}, at::kDouble), {g}); }), "[4, 2]");
  EXPECT_SAYS(error_of([&] { row_mix(at::ones({4, 1}, at::kFloat), {g}); }), "Float");
  EXPECT_SAYS(error_of([&] { row_mix(at::ones({4, 0}, at::kDouble), {}); }), "no history");
}

TEST(Rows, HalvesTakeTheReference) {
  const Tensor g = randn({2, 5}, at::kHalf, 90);
  EXPECT_EQ(row_dots({g}, g).scalar_type(), at::kDouble);
  EXPECT_EQ(row_mix(at::ones({2, 1}, at::kDouble), {g}).scalar_type(), at::kHalf);
}

TEST(Rows, TheTargetHasAName) { EXPECT_GT(std::string(simd_target()).size(), 2u); }

TEST_P(Rows, DistancesAgreeWithTheReference) {
  for (const Case& c : cases()) {
    const Tensor a = randn({c.rows, c.n}, GetParam(), 80), b = randn({c.rows, c.n}, GetParam(), 81);
    const Tensor plain = row_distances_reference(a, b);
    EXPECT_TRUE(at::allclose(row_distances(a, b), plain, 1e-13, 0)) << c.rows << " " << c.n;
    std::vector<char> left_out(size_t(c.rows), 1);
    left_out.back() = 0;
    EXPECT_NEAR(row_distances(a, b, left_out)[c.rows - 1].item<double>(),
                plain[c.rows - 1].item<double>(), 1e-12);
  }
}

TEST(RowsOfDoubles, NormsOfNumbersOfAnySizeAreRight) {
  for (const double size : {1e-310, 1e-200, 1e-150, 1.0, 1e150, 1e200, 1e305}) {
    const Tensor z = at::zeros({2, 37}, at::kDouble), fz = at::full({2, 37}, size, at::kDouble);
    for (const RowResidual& found : {row_residual(z, fz), row_residual_reference(z, fz)}) {
      EXPECT_TRUE(
          at::allclose(found.norms / size, at::full({2, 2}, std::sqrt(37.0), at::kDouble), 1e-9, 0))
          << size;
    }
  }
}

}  // namespace
}  // namespace deq::ops
