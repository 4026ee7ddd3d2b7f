#include "deq/ops/sparse_ldl.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace deq::ops {
namespace {

using Place = SparseLdl::Place;

/// Quasidefinite: positive on the first half of the diagonal, negative on the rest.
struct Drawn {
  std::vector<Place> places;
  std::vector<double> values;

  Drawn(int64_t n, double share, std::mt19937_64& random) {
    std::uniform_real_distribution<double> number(-1, 1);
    for (int32_t i = 0; i < n; ++i) {
      places.push_back({i, i});
      values.push_back((i < n / 2 ? 1 : -1) * (1.5 + number(random)));
      for (int32_t j = 0; j < i; ++j) {
        if ((number(random) + 1) / 2 > share || (i < n / 2) == (j < n / 2)) continue;
        const bool turned = number(random) < 0;
        places.push_back(turned ? Place{j, i} : Place{i, j});
        values.push_back(number(random));
      }
    }
  }
  std::vector<double> times(const std::vector<double>& x) const {
    std::vector<double> y(x.size());
    for (size_t e = 0; e < places.size(); ++e) {
      const auto [i, j] = places[e];
      y[size_t(i)] += values[e] * x[size_t(j)];
      if (i != j) y[size_t(j)] += values[e] * x[size_t(i)];
    }
    return y;
  }
};

TEST(SparseLdl, SolvesWhatItFactors) {
  std::mt19937_64 random(1);
  for (const int64_t n : {1, 2, 3, 10, 40, 90}) {
    for (const double share : {0.0, 0.05, 0.3, 1.0}) {
      const Drawn K(n, share, random);
      const SparseLdl ldl(n, K.places);
      std::vector<double> L(static_cast<size_t>(ldl.numbers())), D(static_cast<size_t>(n)),
          scratch(D), x(D);
      for (int64_t i = 0; i < n; ++i) x[size_t(i)] = std::sin(double(i) + 1);
      const std::vector<double> right = K.times(x);
      std::vector<double> got = right;
      ldl.factor(K.values.data(), L.data(), D.data(), scratch.data());
      ldl.solve(L.data(), D.data(), got.data(), scratch.data());
      for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(got[size_t(i)], x[size_t(i)], 1e-12) << n;
      for (const double left : scratch) EXPECT_EQ(left, 0);
    }
  }
}

/// An arrow, which in its own order would fill up, and a chain.
TEST(SparseLdl, ItsOrderKeepsLSparse) {
  std::vector<Place> arrow, chain;
  for (int32_t i = 0; i < 200; ++i) {
    arrow.push_back({i, i}), chain.push_back({i, i});
    if (i == 0) continue;
    arrow.push_back({0, i}), chain.push_back({i - 1, i});
  }
  EXPECT_EQ(SparseLdl(200, arrow).numbers(), 199);
  EXPECT_EQ(SparseLdl(200, chain).numbers(), 199);
}

}  // namespace
}  // namespace deq::ops
