// Quadratic programs of numbers that are hard on arithmetic: far rows, zeros, overflow.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "deq/layers/quadratic_program.h"
#include "tests/layers/programs.h"

namespace deq::testing {
namespace {

using at::Tensor;

/// Sides that stand for none, by users' habit, or lie far: the answers of programs without them;
/// and rows that lie far and matter.
TEST(QuadraticProgram, FarRowsDoNotDrownTheOthers) {
  const auto numbers = [](std::vector<double> x) { return at::tensor(x, at::kDouble); };
  for (const double far : {1e3, 1e5, 1e7, 1e9, 1e12, 1e20, 1e30, 1e100, 1e300}) {
    QuadraticProgram p{.Q = numbers({2, 0.5, 0.5, 1}).view({2, 2}),
                       .q = numbers({-3, 1}).requires_grad_(),
                       .G = numbers({1, 0, 0, 1, 1, 1, -1, -1}).view({4, 2}),
                       .h = numbers({1, far, 0.25, far})};
    for (const bool sparse : {false, true}) {
      const auto solve = [&](const MinimiseOptions& options) {
        if (!sparse) return minimise(p, options);
        return minimise(SparseProgram{compressed(p.Q), p.q, {}, {}, compressed(p.G), p.h}, options);
      };
      const Optimum found = solve(kTight);
      EXPECT_TRUE(found.report.converged()) << far;
      EXPECT_TRUE(at::allclose(found.z, numbers({1, -1.5}), 1e-12, 1e-12)) << far << found.z;
      EXPECT_TRUE(at::allclose(found.lam, numbers({1.75, 0, 0, 0}), 1e-12, 1e-12)) << far;
      EXPECT_EQ(found.weak.item<int64_t>(), 0) << far;
      const Tensor dq = torch::autograd::grad({found.z.sum()}, {p.q})[0];
      EXPECT_TRUE(at::allclose(dq, numbers({0, -1}), 1e-12, 1e-12)) << far << dq;
      MinimiseOptions warm = kTight;
      warm.warm = &found.active;
      EXPECT_EQ(solve(warm).factorisations.item<int64_t>(), 1);
      const Tensor all = at::ones({4}, at::kBool);
      warm.warm = &all;
      EXPECT_TRUE(at::allclose(solve(warm).z, found.z, 1e-9, 1e-9)) << far;
    }
    // -z_1 falls until the far row stops it.
    p.Q = numbers({0, 0, 0, 1}).view({2, 2});
    p.G = numbers({0, 1, 1, 0}).view({2, 2});
    p.h = numbers({-3, far});
    const Optimum stopped = minimise(p, kTight);
    EXPECT_TRUE(stopped.report.converged() || far > 1e7) << far;
    if (!stopped.report.converged()) continue;  // nothing passes for one, at least
    EXPECT_NEAR(stopped.z[0].item<double>() / far, 1, 1e-12);
    EXPECT_TRUE(stopped.active[1].item<bool>());
  }
}

/// A multiplier of 1e50 is no number in floats.
TEST(QuadraticProgram, WhatIsTooLargeForTheTypeIsNoSolution) {
  const auto number = [](double x, std::vector<int64_t> sizes) {
    return at::full(sizes, x, at::kFloat).requires_grad_();
  };
  const QuadraticProgram p{.Q = number(1, {1, 1}),
                           .q = number(-1e20, {1}),
                           .G = number(1e-30, {1, 1}),
                           .h = number(0, {1})};
  const Optimum found = minimise(p);
  EXPECT_EQ(found.report.reason.item<uint8_t>(), uint8_t(Reason::MaxSteps));
  EXPECT_EQ(found.lam.item<double>(), 0);
  EXPECT_EQ(found.active.item<bool>(), false);
  EXPECT_EQ(torch::autograd::grad({found.z.sum() + found.lam.sum()}, {p.q})[0].item<double>(), 0);
}

/// Found by the fuzz test: a certificate had rounding where h is infinite.
TEST(QuadraticProgram, CertificatesHaveNothingWhereThereIsNoRow) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    QuadraticProgram p = drawn(8, 3, 2, 8, 10 * seed);
    p.b = random({8, 2}, 10 * seed + 7);
    p.h = random({8, 8}, 10 * seed + 8) - 0.5;
    p.h.select(1, 0).fill_(std::numeric_limits<double>::infinity());
    const Optimum found = minimise(p);
    EXPECT_TRUE(found.certificate.select(1, 2).eq(0).all().item<bool>()) << found.certificate;
    EXPECT_GT(found.report.count(Reason::Infeasible), 0);
  }
}

/// However large the others are: 0 z <= -1 and 0 z = 1 are contradictions, 0 z <= 0 is nothing.
TEST(QuadraticProgram, RowsOfZerosMeanTheirSigns) {
  for (const double size : {1.0, 1e20, 1e40}) {
    const auto solve = [&](double b, double h) {
      const auto number = [](std::vector<double> x, std::vector<int64_t> sizes) {
        return at::tensor(x, at::kDouble).view(sizes);
      };
      return minimise(QuadraticProgram{.Q = number({0.5}, {1, 1}),
                                       .q = number({0}, {1}),
                                       .A = number({size, 0}, {2, 1}),
                                       .b = number({-size, b}, {2}),
                                       .G = number({0.5, 0}, {2, 1}),
                                       .h = number({0, h}, {2})});
    };
    const auto reason = [](const Optimum& o) { return Reason(o.report.reason.item<uint8_t>()); };
    const Optimum below = solve(0, -1), other = solve(1, 1), good = solve(0, 0);
    EXPECT_EQ(reason(below), Reason::Infeasible);
    EXPECT_TRUE(at::allclose(below.certificate[0], at::tensor({0.0, 0.0, 0.0, 1.0}, at::kDouble)))
        << below.certificate;
    EXPECT_EQ(reason(other), Reason::Infeasible);
    EXPECT_TRUE(at::allclose(other.certificate[0], at::tensor({0.0, -1.0, 0.0, 0.0}, at::kDouble)))
        << other.certificate;
    EXPECT_EQ(reason(good), Reason::Converged);
    EXPECT_NEAR(good.z.item<double>(), -1, 1e-12);
    EXPECT_EQ(good.weak.item<int64_t>(), 0);
    EXPECT_FALSE(good.active[1].item<bool>());
  }
}

TEST(QuadraticProgram, NumbersOutOfRangeAreNone) {
  const auto reason = [](double Q, double G, double h) {
    const auto number = [](double x, std::vector<int64_t> sizes) {
      return at::full(sizes, x, at::kDouble);
    };
    const QuadraticProgram p{
        .Q = number(Q, {1, 1}), .q = number(-3, {1}), .G = number(G, {1, 1}), .h = number(h, {1})};
    const Optimum dense = minimise(p);
    const Optimum sparse =
        minimise(SparseProgram{compressed(p.Q), p.q, {}, {}, compressed(p.G), p.h});
    EXPECT_EQ(dense.report.reason.item<uint8_t>(), sparse.report.reason.item<uint8_t>());
    EXPECT_TRUE(at::allclose(dense.z, sparse.z, 1e-12, 1e-12));
    return std::pair{Reason(dense.report.reason.item<uint8_t>()), dense.z.item<double>()};
  };
  EXPECT_EQ(reason(1, 1, 2).second, 2);
  EXPECT_EQ(reason(1, 1, 1e51), (std::pair{Reason::Converged, 3.0}));
  EXPECT_EQ(reason(1, 1, -1e51).first, Reason::NonFinite);
  EXPECT_EQ(reason(1, 1e51, 1).first, Reason::NonFinite);
  EXPECT_EQ(reason(1e51, 1, 1).first, Reason::NonFinite);
  EXPECT_EQ(reason(1, 1e-51, 0), (std::pair{Reason::Converged, 3.0}));
  EXPECT_EQ(reason(1e-51, 0, 1).first, Reason::Unbounded);
}

}  // namespace
}  // namespace deq::testing
