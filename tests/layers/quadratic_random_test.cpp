// Random quadratic programs against an enumeration of active sets: whole numbers, so that rows
// meet in one point, touch without pressing, depend on each other and contradict each other; and
// real numbers.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "deq/layers/quadratic_program.h"
#include "tests/layers/enumeration.h"
#include "tests/layers/fuzz.h"

namespace deq::testing {
namespace {

using at::Tensor;
using Generator = std::mt19937_64;

struct Kind {
  int64_t n, p, m;
  bool whole;
};

SmallProgram drawn(const Kind& kind, Generator& random) {
  const auto whole = [&](int from, int to) {
    return double(std::uniform_int_distribution<int>(from, to)(random));
  };
  std::normal_distribution<double> normal;
  const auto number = [&] { return kind.whole ? whole(-2, 2) : normal(random); };
  SmallProgram s{kind.n, kind.p, kind.m, {}, {}, {}, {}, {}, {}};
  const int64_t n = kind.n, p = kind.p, m = kind.m;
  const auto fill = [&](std::vector<double>& x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) x.push_back(number());
  };
  std::vector<double> factor;
  const int64_t rank = int64_t(whole(0, int(n) + 2));
  fill(factor, rank * n);
  s.Q.assign(size_t(n * n), 0);
  for (int64_t r = 0; r < rank; ++r)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        s.Q[size_t(i * n + j)] += factor[size_t(r * n + i)] * factor[size_t(r * n + j)];
  fill(s.q, n);
  fill(s.A, p * n);
  fill(s.b, p);
  fill(s.G, m * n);
  fill(s.h, m);
  for (double& x : s.h) x += whole(0, 2);
  const auto repeat = [&](std::vector<double>& rows, std::vector<double>& sides, int64_t count) {
    if (count < 2 || whole(0, 3) > 0) return;
    const double by = whole(1, 3);
    for (int64_t i = 0; i < n; ++i) rows[size_t((count - 1) * n + i)] = by * rows[size_t(i)];
    if (whole(0, 2) > 0) sides[size_t(count - 1)] = by * sides[0];
  };
  repeat(s.A, s.b, p);
  repeat(s.G, s.h, m);
  return s;
}

QuadraticProgram together(const std::vector<SmallProgram>& all) {
  const int64_t B = int64_t(all.size()), n = all[0].n, p = all[0].p, m = all[0].m;
  const auto tensor = [&](auto member, std::vector<int64_t> sizes) {
    std::vector<double> numbers;
    for (const SmallProgram& s : all)
      numbers.insert(numbers.end(), (s.*member).begin(), (s.*member).end());
    sizes.insert(sizes.begin(), B);
    return at::tensor(numbers, at::kDouble).view(sizes);
  };
  QuadraticProgram program{.Q = tensor(&SmallProgram::Q, {n, n}),
                           .q = tensor(&SmallProgram::q, {n})};
  if (p > 0)
    program.A = tensor(&SmallProgram::A, {p, n}), program.b = tensor(&SmallProgram::b, {p});
  if (m > 0)
    program.G = tensor(&SmallProgram::G, {m, n}), program.h = tensor(&SmallProgram::h, {m});
  return program;
}

std::string described(const SmallProgram& s) {
  const auto list = [](const std::vector<double>& x) {
    return fmt::format("{}", fmt::join(x, ","));
  };
  return fmt::format("n {} Q {} q {} A {} b {} G {} h {}", s.n, list(s.Q), list(s.q), list(s.A),
                     list(s.b), list(s.G), list(s.h));
}

/// Whether a point as good as z lies elsewhere: that nearest to some points far away does.
bool others(const SmallProgram& s, const double* z) {
  SmallProgram face = s;
  std::ranges::fill(face.Q, 0.0);
  double along = 0;
  for (int64_t i = 0; i < s.n; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < s.n; ++j) sum += s.Q[size_t(i * s.n + j)] * z[j];
    face.A.insert(face.A.end(), &s.Q[size_t(i * s.n)], &s.Q[size_t(i * s.n)] + s.n);
    face.b.push_back(sum);
    face.Q[size_t(i * s.n + i)] = 1;
    along += s.q[size_t(i)] * z[i];
  }
  face.A.insert(face.A.end(), s.q.begin(), s.q.end());
  face.b.push_back(along);
  face.p += s.n + 1;
  for (int64_t i = 0; i < 2 * s.n; ++i) {
    std::ranges::fill(face.q, 0.0);
    face.q[size_t(i / 2)] = i % 2 ? 1000 : -1000;
    for (const auto& other : enumerate(face).z)
      for (int64_t j = 0; j < s.n; ++j)
        if (std::abs(other[size_t(j)] - z[j]) > 1e-5) return true;
  }
  return false;
}

class RandomPrograms : public ::testing::Test {
 protected:
  std::map<Reason, int> counts_;

  void judge(const SmallProgram& s, const Optimum& found, int64_t i) {
    const Reason reason = Reason(found.report.reason[i].item<uint8_t>());
    ++counts_[reason];
    const Tensor z = found.z[i].contiguous();
    const double* const own = z.data_ptr<double>();
    ASSERT_TRUE(z.isfinite().all().item<bool>()) << described(s);
    if (reason == Reason::Converged || reason == Reason::NotUnique) {
      const Enumerated right = enumerate(s);
      ASSERT_FALSE(right.z.empty()) << "none: " << described(s);
      EXPECT_LE(s.violation(own), 1e-8 * (1 + z.abs().max().item<double>())) << described(s);
      double least = 1e300, norm = 0;
      for (int64_t j = 0; j < s.n; ++j) norm += own[j] * own[j];
      bool differ = false;
      for (const auto& other : right.z) {
        const double value = s.objective(other.data());
        EXPECT_NEAR(s.objective(own), value, 1e-7 * (1 + std::abs(value))) << described(s);
        double apart = 0, square = 0, size = 1;
        for (int64_t j = 0; j < s.n; ++j) {
          apart = std::max(apart, std::abs(own[j] - other[size_t(j)]));
          size = std::max(size, std::abs(other[size_t(j)]));
          square += other[size_t(j)] * other[size_t(j)];
        }
        least = std::min(least, square);
        differ |= apart > 1e-6 * size;
      }
      EXPECT_FALSE(reason == Reason::Converged && differ) << "one of many: " << described(s);
      if (reason == Reason::NotUnique) {
        EXPECT_LE(norm, least + 1e-6 * (1 + least)) << "not of least norm: " << described(s);
        EXPECT_TRUE(differ || others(s, own)) << "the only one: " << described(s);
      }
      return;
    }
    EXPECT_TRUE(enumerate(s).z.empty()) << int(reason) << ": " << described(s);
    EXPECT_EQ(feasible(s), reason == Reason::Unbounded) << described(s);
    EXPECT_NE(reason, Reason::MaxSteps) << described(s);
    EXPECT_NE(reason, Reason::NotConvex) << described(s);
    check_certificate(s, found.certificate[i].contiguous(), reason);
  }

  static void check_certificate(const SmallProgram& s, const Tensor& certificate, Reason reason) {
    const double* const y = certificate.data_ptr<double>();
    const auto row = [&](int64_t r) {
      return r < s.p ? &s.A[size_t(r * s.n)] : &s.G[size_t((r - s.p) * s.n)];
    };
    double value = 0;
    if (reason == Reason::Infeasible) {
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0;
        for (int64_t r = 0; r < s.p + s.m; ++r) sum += row(r)[j] * y[r];
        EXPECT_NEAR(sum, 0, 1e-9) << described(s);
      }
      for (int64_t r = 0; r < s.p + s.m; ++r) {
        value += y[r] * (r < s.p ? s.b[size_t(r)] : s.h[size_t(r - s.p)]);
        EXPECT_TRUE(r < s.p || y[r] >= 0);
      }
    } else {
      for (int64_t i = 0; i < s.n; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < s.n; ++j) sum += s.Q[size_t(i * s.n + j)] * y[j];
        EXPECT_NEAR(sum, 0, 1e-8) << described(s);
        value += s.q[size_t(i)] * y[i];
      }
      for (int64_t r = 0; r < s.p + s.m; ++r) {
        double sum = 0;
        for (int64_t j = 0; j < s.n; ++j) sum += row(r)[j] * y[j];
        EXPECT_LE(r < s.p ? std::abs(sum) : sum, 1e-9) << described(s);
      }
    }
    EXPECT_LT(value, 0) << described(s);
  }

  void run(const Kind& kind, int64_t batches, uint64_t seed) {
    Generator random(seed);
    for (int64_t batch = 0; batch < batches; ++batch) {
      std::vector<SmallProgram> all;
      for (int i = 0; i < 50; ++i) all.push_back(drawn(kind, random));
      const Optimum found = minimise(together(all), {.stop = {.max_steps = 60, .rel_tol = 1e-8}});
      for (size_t i = 0; i < all.size(); ++i) judge(all[i], found, int64_t(i));
      if (HasFailure()) return;
    }
  }
};

TEST_F(RandomPrograms, AreWhatEnumerationSays) {
  int64_t number = 0;
  for (const bool whole : {true, false}) {
    for (const int64_t n : {1, 2, 3, 4}) {
      for (const int64_t p : {0, 1, 2}) {
        for (const int64_t m : {0, 2, 5}) {
          if (p >= n && n > 1 && p == 2 && m == 0) continue;
          run({n, p, m, whole}, 4 * fuzz_times(), fuzz_seed(uint64_t(++number)));
        }
      }
    }
  }
  int total = 0;
  for (const auto& [reason, count] : counts_) total += count;
  EXPECT_GE(total, 10000);
  for (const Reason reason :
       {Reason::Converged, Reason::NotUnique, Reason::Infeasible, Reason::Unbounded})
    EXPECT_GT(counts_[reason], 100) << int(reason);
}

}  // namespace
}  // namespace deq::testing
