// Many small worlds, most of them degenerate, against the enumeration of everything that contacts
// can do.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "deq/layers/contact.h"
#include "deq/layers/lemke.h"
#include "tests/layers/contact_cases.h"
#include "tests/layers/fuzz.h"

namespace deq::testing {
namespace {

using at::Tensor;
using Vector = std::vector<double>;

/// Sx = b by elimination with complete pivoting; false where S is singular.
bool solve(std::vector<Vector> S, Vector b, Vector& x) {
  const size_t k = b.size();
  std::vector<size_t> columns(k);
  for (size_t i = 0; i < k; ++i) columns[i] = i;
  for (size_t c = 0; c < k; ++c) {
    size_t row = c, column = c;
    for (size_t i = c; i < k; ++i)
      for (size_t j = c; j < k; ++j)
        if (std::fabs(S[i][j]) > std::fabs(S[row][column])) row = i, column = j;
    if (std::fabs(S[row][column]) < 1e-9) return false;
    std::swap(S[c], S[row]), std::swap(b[c], b[row]), std::swap(columns[c], columns[column]);
    for (Vector& own : S) std::swap(own[c], own[column]);
    for (size_t i = c + 1; i < k; ++i) {
      const double share = S[i][c] / S[c][c];
      for (size_t j = c; j < k; ++j) S[i][j] -= share * S[c][j];
      b[i] -= share * b[c];
    }
  }
  x.assign(k, 0);
  for (size_t i = k; i-- > 0;) {
    double sum = b[i];
    for (size_t j = i + 1; j < k; ++j) sum -= S[i][j] * x[columns[j]];
    x[columns[i]] = sum / S[i][i];
  }
  return true;
}

/// One world of the batch, in plain numbers; M is diagonal.
struct World {
  size_t n, m;
  Vector mass, free, gap;  // free: v without contacts; gap: e (Jn v)
  std::vector<Vector> normal, tangent;
  Vector friction;

  World(const Contact& c, int64_t b) : n(size_t(c.velocity.size(1))), m(size_t(c.normal.size(1))) {
    const auto row = [](const Tensor& t) {
      const Tensor own = t.contiguous();
      return Vector(own.data_ptr<double>(), own.data_ptr<double>() + own.numel());
    };
    mass = row(c.mass[b].diagonal());
    free = row(c.velocity[b] + c.impulse[b] / c.mass[b].diagonal());
    gap = row(c.restitution[b] * c.normal[b].mv(c.velocity[b]));
    friction = row(c.friction[b]);
    for (size_t i = 0; i < m; ++i) {
      normal.push_back(row(c.normal[b][int64_t(i)]));
      tangent.push_back(row(c.tangent[b][int64_t(i)]));
    }
  }
  double product(const Vector& x, const Vector& y) const {
    double sum = 0;
    for (size_t j = 0; j < n; ++j) sum += x[j] * y[j] / mass[j];
    return sum;
  }
  static double plain(const Vector& x, const Vector& y) {
    double sum = 0;
    for (size_t j = 0; j < x.size(); ++j) sum += x[j] * y[j];
    return sum;
  }

  /// v of the combination (0 open, 1 sticks, 2 and 3 slide), where it is one solution.
  bool try_combination(const std::vector<int>& digits, Vector& v) const {
    std::vector<Vector> rows, along;
    Vector right;
    std::vector<size_t> of;
    for (size_t i = 0; i < m; ++i) {
      if (digits[i] == 0) continue;
      Vector impulse = normal[i];
      if (digits[i] > 1) {
        const double slope = (digits[i] == 2 ? 1 : -1) * friction[i];
        for (size_t j = 0; j < n; ++j) impulse[j] += slope * tangent[i][j];
      }
      rows.push_back(normal[i]), along.push_back(impulse), of.push_back(i);
      right.push_back(-gap[i] - plain(normal[i], free));
      if (digits[i] != 1) continue;
      rows.push_back(tangent[i]), along.push_back(tangent[i]), of.push_back(m);
      right.push_back(-plain(tangent[i], free));
    }
    std::vector<Vector> S(rows.size(), Vector(rows.size()));
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t j = 0; j < rows.size(); ++j) S[i][j] = product(rows[i], along[j]);
    Vector lam;
    if (!solve(S, right, lam)) return false;
    v = free;
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t j = 0; j < n; ++j) v[j] += lam[i] * along[i][j] / mass[j];
    constexpr double kSlack = 1e-9;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (of[i] < m && lam[i] < -kSlack) return false;
      if (of[i] == m && std::fabs(lam[i]) > friction[of[i - 1]] * lam[i - 1] + kSlack) return false;
    }
    for (size_t i = 0; i < m; ++i) {
      if (plain(normal[i], v) + gap[i] < -kSlack) return false;
      const double s = plain(tangent[i], v);
      if ((digits[i] == 2 && s > kSlack) || (digits[i] == 3 && s < -kSlack)) return false;
    }
    return true;
  }
  /// All of them.
  std::vector<Vector> solutions() const {
    std::vector<Vector> found;
    std::vector<int> digits(m);
    for (;;) {
      Vector v;
      if (try_combination(digits, v)) found.push_back(v);
      size_t i = 0;
      for (; i < m; ++i) {
        if (++digits[i] < 4) break;
        digits[i] = 0;
      }
      if (i == m) return found;
    }
  }
};

/// Small whole numbers, so that contacts are weakly active, depend on each other, or jam.
Contact whole_numbers(int64_t B, int64_t n, int64_t m, std::mt19937_64& random) {
  const auto draw = [&](std::vector<int64_t> sizes, std::vector<double> from) {
    const Tensor t = at::empty(sizes, at::kDouble);
    for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<double>()[i] = from[random() % from.size()];
    return t;
  };
  Contact c{.mass = at::diag_embed(draw({B, n}, {1, 1, 2, 4})),
            .velocity = draw({B, n}, {-1, 0, 0, 1, 2}),
            .impulse = draw({B, n}, {-1, 0, 0, 1}),
            .normal = draw({B, m, n}, {-1, 0, 0, 1}),
            .tangent = draw({B, m, n}, {-1, 0, 0, 1}),
            .restitution = draw({B, m}, {0, 0, 0.5, 1}),
            .friction = draw({B, m}, {0, 0.25, 0.5, 1})};
  if (m > 1) {  // every fourth world has a contact twice
    const int64_t some = B / 4;
    c.normal.narrow(0, 0, some).select(1, 1).copy_(c.normal.narrow(0, 0, some).select(1, 0));
    c.tangent.narrow(0, 0, some).select(1, 1).copy_(c.tangent.narrow(0, 0, some).select(1, 0));
  }
  // An empty row is no contact here, and one for the enumeration.
  const Tensor empty = c.normal.eq(0).all(2);
  c.normal.select(2, 0).add_(empty.to(at::kDouble));
  return c;
}

struct Counts {
  int64_t worlds = 0, wrong = 0, missed = 0, jammed = 0, elsewhere = 0, weak = 0, not_unique = 0;
};

void compare(const Contact& c, Counts& counts) {
  const Impact found = resolve(c);
  const Tensor off = violations(c, found);
  for (int64_t b = 0; b < c.velocity.size(0); ++b, ++counts.worlds) {
    const Reason reason = Reason(found.report.reason[b].item<uint8_t>());
    counts.weak += found.weak[b].item<int64_t>() > 0 || found.dependent[b].item<int64_t>() > 0;
    const std::vector<Vector> all = World(c, b).solutions();
    if (reason == Reason::Infeasible || reason == Reason::MaxSteps) {
      counts.jammed += reason == Reason::Infeasible;
      counts.missed += !all.empty();
      continue;
    }
    counts.not_unique += reason == Reason::NotUnique;
    counts.wrong += !(off[b].item<double>() <= 1e-9);
    // Where the enumeration has solutions ours is one of them, unless only singular systems say so.
    const double* const v = found.velocity.data_ptr<double>() + b * c.velocity.size(1);
    const bool among = std::ranges::any_of(all, [&](const Vector& own) {
      double most = 0;
      for (size_t j = 0; j < own.size(); ++j) most = std::max(most, std::fabs(own[j] - v[j]));
      return most < 1e-8;
    });
    const bool frictionless = c.friction[b].eq(0).all().item<bool>();
    if (!among && !all.empty()) ++counts.elsewhere;
    if (!among && !all.empty() && frictionless && reason == Reason::Converged) ++counts.wrong;
  }
}

TEST(ContactRandom, AgreesWithTheEnumerationOfAllCombinations) {
  std::mt19937_64 random(fuzz_seed(1));
  Counts counts;
  for (int64_t k = 0; k < fuzz_times(); ++k) {
    for (const auto& [n, m, B] :
         {std::tuple{2, 1, 2000}, std::tuple{2, 2, 3000}, std::tuple{3, 2, 3000},
          std::tuple{3, 3, 2000}, std::tuple{4, 3, 1500}, std::tuple{6, 4, 500}})
      compare(whole_numbers(B, n, m, random), counts);
    for (const uint64_t seed : {1ul, 2ul, 3ul})
      compare(random_worlds(300, 2, 3, false, fuzz_seed(seed) + 10 * uint64_t(k)), counts);
    if (counts.wrong + counts.missed > 0) break;
  }
  fmt::print("{} worlds: {} weak or dependent, {} infeasible, {} not unique, {} elsewhere\n",
             counts.worlds, counts.weak, counts.jammed, counts.not_unique, counts.elsewhere);
  EXPECT_GE(counts.worlds, 10000);
  EXPECT_EQ(counts.wrong, 0);
  EXPECT_EQ(counts.missed, 0);
  EXPECT_GE(counts.weak, 1000);
  EXPECT_GE(counts.jammed, 100);
}

TEST(ContactRandom, SurvivesAnything) {
  std::mt19937_64 random(fuzz_seed(3));
  const std::vector<double> extremes{0,     0,      1,    -1,    1,     0.5, 2,
                                     1e-12, 1e-160, 1e12, 1e160, 1e300, NAN, INFINITY};
  const auto draw = [&](std::vector<int64_t> sizes, size_t kinds) {
    const Tensor t = at::empty(sizes, at::kDouble);
    for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<double>()[i] = extremes[random() % kinds];
    return t;
  };
  int64_t converged = 0;
  for (int64_t trial = 0; trial < 300 * fuzz_times(); ++trial) {
    const int64_t B = 20, n = 1 + int64_t(random() % 4), m = int64_t(random() % 4),
                  p = int64_t(random() % 3);
    const size_t kinds = trial % 3 == 0 ? 7 : trial % 3 == 1 ? 9 : extremes.size();
    Contact c{.mass = at::diag_embed(draw({B, n}, kinds).abs()) + 0.1 * draw({B, n, n}, 4),
              .velocity = draw({B, n}, kinds),
              .impulse = draw({B, n}, kinds),
              .normal = draw({B, m, n}, kinds),
              .tangent = draw({B, m, n}, kinds),
              .restitution = draw({B, m}, kinds).abs(),
              .friction = draw({B, m}, kinds).abs(),
              .joint = draw({B, p, n}, kinds),
              .bias = draw({B, m}, 6),
              .joint_bias = draw({B, p}, 2)};
    const Impact found = resolve(c);
    for (const Tensor* t : {&found.velocity, &found.normal_impulse, &found.friction_impulse,
                            &found.joint_impulse, &found.certificate})
      ASSERT_TRUE(t->isfinite().all().item<bool>()) << trial;
    if (kinds > 7) continue;
    const Tensor off = violations(c, found);
    const Tensor size = 1 + found.velocity.abs().amax(1) + found.normal_impulse.abs().sum(1) +
                        found.joint_impulse.abs().sum(1);
    for (int64_t b = 0; b < B; ++b) {
      if (found.report.reason[b].item<uint8_t>() != uint8_t(Reason::Converged)) continue;
      ++converged;
      EXPECT_LE((off[b] / size[b]).item<double>(), 1e-8) << trial;
    }
  }
  EXPECT_GT(converged, 100);
}

TEST(Lemke, SolvesProblemsWithTies) {
  std::mt19937_64 random(2);
  int64_t found = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    const int64_t k = 1 + int64_t(random() % 6);
    Vector L(size_t(k * k)), M(size_t(k * k)), q(static_cast<size_t>(k));
    for (double& x : L) x = double(random() % 3) - 1;
    for (double& x : q) x = double(random() % 5) - 2;
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j)
        for (int64_t l = 0; l < k; ++l)
          M[size_t(i * k + j)] += L[size_t(i * k + l)] * L[size_t(j * k + l)];
    for (int64_t i = 0; i < k; ++i) M[size_t(i * k + i)] += trial % 2;  // definite: always solvable
    const Complementarity answer = lemke(M, q, 10000);
    EXPECT_TRUE(answer.found || trial % 2 == 0);
    EXPECT_LT(answer.pivots, 200);
    if (!answer.found) continue;
    ++found;
    for (int64_t i = 0; i < k; ++i) {
      double w = q[size_t(i)];
      for (int64_t j = 0; j < k; ++j) w += M[size_t(i * k + j)] * answer.z[size_t(j)];
      EXPECT_NEAR(std::min(w, answer.z[size_t(i)]), 0, 1e-9);
    }
  }
  EXPECT_GT(found, 1200);
  EXPECT_FALSE(lemke({0}, {-1}, 100).found);
  EXPECT_FALSE(lemke({1}, {-1}, 0).found);
}

}  // namespace
}  // namespace deq::testing
