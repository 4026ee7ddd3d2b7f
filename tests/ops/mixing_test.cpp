#include "deq/ops/mixing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "deq/ops/mixing_kernel.h"

namespace deq::ops {
namespace {

template <class T>
struct Case {
  std::vector<T> C, packed, base, floor, V;
  int64_t n, width;

  /// n of N vectors are free: every other one.
  Case(int64_t n, int64_t rank, uint64_t seed) : n(n), width(mixing_width<T>(rank)) {
    std::mt19937_64 random(seed);
    const auto number = [&] { return T(double(random() >> 11) * 0x1p-53 - 0.5); };
    const int64_t N = 2 * n;
    C.resize(size_t(N * N));
    for (int64_t i = 0; i < N; ++i) {
      for (int64_t j = 0; j <= i; ++j) C[size_t(i * N + j)] = C[size_t(j * N + i)] = number();
    }
    std::vector<int64_t> which;
    for (int64_t i = 0; i < n; ++i) which.push_back(2 * i);
    packed.resize(size_t(packed_couplings(n)));
    pack_couplings(C.data(), N, which, T(0.5), packed.data());
    base.resize(size_t(n * width));
    V.resize(size_t(n * width));
    floor.assign(size_t(n), T(0));
    for (int64_t i = 0; i < n; ++i) {
      T squared = 0;
      for (int64_t c = 0; c < rank; ++c) {
        base[size_t(i * width + c)] = number();
        V[size_t(i * width + c)] = number();
        squared += V[size_t(i * width + c)] * V[size_t(i * width + c)];
      }
      for (int64_t c = 0; c < rank; ++c) V[size_t(i * width + c)] /= std::sqrt(squared);
    }
  }
  Mixing<T> problem() const { return {n, width, packed.data(), base.data(), floor.data()}; }
};

template <class T>
void expect_near(const std::vector<T>& a, const std::vector<T>& b, double tolerance) {
  double apart = 0;
  for (size_t i = 0; i < a.size(); ++i) apart = std::max(apart, std::abs(double(a[i] - b[i])));
  EXPECT_LE(apart, tolerance);
}

template <class T>
void expect_iterates_of_the_reference(double rounding) {
  for (const int64_t n : {1, 2, 5, 6, 7, 12, 13, 40, 61}) {
    for (const int64_t rank : {2, 8, 17, 48}) {
      Case<T> c(n, rank, uint64_t(100 * n + rank));
      if (n > 3) c.floor[3] = T(1e9);  // silent: it stays
      const Mixing<T> p = c.problem();
      EXPECT_EQ(p.coupling(n - 1, 0), n > 1 ? T(0.5) * c.C[size_t(4 * n * (n - 1))] : T(0));
      std::vector<T> ours = c.V, theirs = c.V, moved(c.V.size()), moved_too(c.V.size());
      std::vector<T> block(size_t(kMixingBlock * p.width));
      for (int sweep = 0; sweep < 4; ++sweep) {
        const double size = mixing_sweep(p, ours.data(), moved.data(), block.data());
        const double wanted = mixing_sweep_reference(p, theirs.data(), moved_too.data());
        EXPECT_NEAR(size, wanted, 1000 * rounding * double(n));
        expect_near(ours, theirs, 1000 * rounding);
        expect_near(moved, moved_too, 1000 * rounding);
      }
      mixing_product(p, ours.data(), p.base, moved.data());
      mixing_product_reference(p, ours.data(), p.base, moved_too.data());
      expect_near(moved, moved_too, 1000 * rounding);
      mixing_product(p, ours.data(), nullptr, moved.data());
      mixing_product_reference<T>(p, ours.data(), nullptr, moved_too.data());
      expect_near(moved, moved_too, 1000 * rounding);
    }
  }
}

TEST(Mixing, FloatIteratesAreTheReferences) { expect_iterates_of_the_reference<float>(6e-8); }
TEST(Mixing, DoubleIteratesAreTheReferences) { expect_iterates_of_the_reference<double>(1.1e-16); }

TEST(Mixing, RowsOfTheAdjoint) {
  Case<double> c(7, 5, 3);
  const Mixing<double> p = c.problem();
  const int64_t n = 7, w = p.width;
  std::vector<double> norms(7, 2.0), Z = c.base, Y = c.V, X(c.V.size()), R = c.base, P = c.V;
  norms[2] = 0;
  const auto at = [&](const std::vector<double>& a, int64_t i, int64_t x) {
    return a[size_t(i * w + x)];
  };
  double wanted = 0;
  const double got = tangent_rows(n, w, c.V.data(), norms.data(), Y.data(), Z.data());
  for (int64_t i = 0; i < n; ++i) {
    double along = 0;
    for (int64_t x = 0; x < w; ++x) along += at(c.base, i, x) * at(c.V, i, x);
    for (int64_t x = 0; x < w; ++x) {
      const double z = i == 2 ? 0 : at(c.base, i, x) - along * at(c.V, i, x) + 2 * at(Y, i, x);
      EXPECT_NEAR(at(Z, i, x), z, 1e-14);
      wanted += at(Y, i, x) * z;
    }
  }
  EXPECT_NEAR(got, wanted, 1e-13);
  double scaled = 0, total = 0, by_norm = 0;
  const double left =
      conjugate_step(n, w, 0.3, P.data(), Z.data(), norms.data(), X.data(), R.data(), scaled);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t x = 0; x < w; ++x) {
      EXPECT_NEAR(at(X, i, x), 0.3 * at(P, i, x), 1e-15);
      EXPECT_NEAR(at(R, i, x), at(c.base, i, x) - 0.3 * at(Z, i, x), 1e-15);
      total += at(R, i, x) * at(R, i, x);
      by_norm += i == 2 ? 0 : at(R, i, x) * at(R, i, x) / 2;
    }
  }
  EXPECT_NEAR(left, total, 1e-13);
  EXPECT_NEAR(scaled, by_norm, 1e-13);
  conjugate_direction(n, w, 0.25, R.data(), norms.data(), P.data());
  for (int64_t x = 0; x < w; ++x) {
    EXPECT_NEAR(at(P, 1, x), at(R, 1, x) / 2 + 0.25 * at(c.V, 1, x), 1e-15);
    EXPECT_NEAR(at(P, 2, x), 0.25 * at(c.V, 2, x), 1e-15);
  }
}

}  // namespace
}  // namespace deq::ops
