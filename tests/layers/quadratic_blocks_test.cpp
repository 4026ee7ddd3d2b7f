// Programs that fall apart into blocks whose numbers differ by many powers of ten: the answer of
// each is what it is alone. Nothing of one may hide beside another's numbers: not that it has no
// solution, not that a row is active, not a curvature.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "deq/layers/quadratic_program.h"
#include "tests/layers/fuzz.h"

namespace deq::testing {
namespace {

using at::Tensor;

Tensor numbers(std::vector<double> x, std::vector<int64_t> sizes) {
  return at::tensor(x, at::kDouble).view(sizes);
}
Tensor diagonal(std::vector<double> x) { return at::diag(at::tensor(x, at::kDouble)); }
Reason reason_of(const Optimum& o) { return Reason(o.report.reason.item<uint8_t>()); }

/// z as it should be, each entry by its own size.
void expect_z(const Optimum& found, const std::vector<double>& z, double share,
              const std::string& where) {
  for (size_t i = 0; i < z.size(); ++i)
    EXPECT_NEAR(found.z[int64_t(i)].item<double>(), z[i], share * std::max(1.0, std::fabs(z[i])))
        << where;
}

QuadraticProgram as(at::ScalarType type, const QuadraticProgram& p) {
  QuadraticProgram q = p;
  for (Tensor* t : {&q.Q, &q.q, &q.A, &q.b, &q.G, &q.h})
    if (t->defined()) *t = t->to(type);
  return q;
}
Optimum minimise_sparse(const QuadraticProgram& p, const MinimiseOptions& options = {}) {
  const auto of = [](const Tensor& M) { return M.defined() ? compressed(M) : SparseMatrix(); };
  return minimise(SparseProgram{of(p.Q), p.q, of(p.A), p.b, of(p.G), p.h}, options);
}

TEST(QuadraticBlocks, ALargeNumberHidesNoContradiction) {
  for (const double s : {1e5, 1e7, 1e9, 1e10, 1e11, 1e12, 5e12, 1e15}) {
    const QuadraticProgram small{.Q = at::eye(2, at::kDouble),
                                 .q = numbers({0, 0}, {2}),
                                 .A = numbers({0, 1}, {1, 2}),
                                 .b = numbers({s}, {1}),
                                 .G = numbers({1, 0, -1, 0}, {2, 2}),
                                 .h = numbers({.5, -.6}, {2})};
    const QuadraticProgram larger{.Q = numbers({2, .5, 0, .5, 3, 0, 0, 0, 1}, {3, 3}),
                                  .q = numbers({.3, -.2, 0}, {3}),
                                  .A = numbers({0, 0, 1}, {1, 3}),
                                  .b = numbers({s}, {1}),
                                  .G = numbers({1, 1, 0, -1, -1, 0}, {2, 3}),
                                  .h = numbers({1, -2}, {2})};
    for (const auto type : {at::kDouble, at::kFloat}) {
      for (const QuadraticProgram& p : {as(type, small), as(type, larger)}) {
        for (const bool sparse : {false, true}) {
          const Optimum found = sparse ? minimise_sparse(p) : minimise(p);
          EXPECT_EQ(reason_of(found), Reason::Infeasible) << s << toString(type) << sparse;
          const Tensor y = found.certificate[0].narrow(0, 0, 3);
          EXPECT_TRUE(at::allclose(y, numbers({0, 1, 1}, {3}))) << y;
        }
      }
    }
  }
}

/// dz_0 / dq_0 and dz_0 / dh_0 of  (z_0 - pull)^2 / 2, z_0 <= h_0,  beside larger numbers.
void expect_slopes(QuadraticProgram p, const Degenerate& degenerate, double dq, double dh,
                   const std::string& where) {
  p.q.requires_grad_(), p.h.requires_grad_();
  for (const bool sparse : {false, true}) {
    const MinimiseOptions options{.degenerate = degenerate};
    const Optimum found = sparse ? minimise_sparse(p, options) : minimise(p, options);
    ASSERT_EQ(reason_of(found), Reason::Converged) << where;
    EXPECT_EQ(found.weak.item<int64_t>(), 0) << where;
    const auto g = torch::autograd::grad({found.z[0]}, {p.q, p.h});
    EXPECT_NEAR(g[0][0].item<double>(), dq, 1e-6) << where;
    EXPECT_NEAR(g[1][0].item<double>(), dh, 1e-6) << where;
  }
}

TEST(QuadraticBlocks, RowsAreWeaklyActiveByTheirOwnSize) {
  for (const auto type : {at::kDouble, at::kFloat}) {
    for (const double s : {1e3, 1e5, 1e7, 1e8, 1e9, 1e11}) {
      for (const Degenerate& how :
           {Degenerate::Inactive, Degenerate::Active, Degenerate::LeastNorm}) {
        const std::string where = fmt::format("{} {} {}", toString(type), s, int(how.kind));
        const Tensor I = at::eye(2, at::kDouble), one = numbers({1, 0}, {1, 2});
        const auto both = [&](double pull, double h) {
          return as(
              type,
              {.Q = I, .q = numbers({-pull, -s}, {2}), .G = I, .h = numbers({h, 2 * s}, {2})});
        };
        expect_slopes(both(.4, .45), how, -1, 0, where);
        expect_slopes(both(.6, .5), how, 0, 1, where);
        const auto alone = [&](const Tensor& Q, double pull) {
          return as(type,
                    {.Q = Q, .q = numbers({-pull, -s}, {2}), .G = one, .h = numbers({.5}, {1})});
        };
        expect_slopes(alone(I, .4), how, -1, 0, where);
        expect_slopes(alone(diagonal({1, s}), .6), how, 0, 1, where);
        const QuadraticProgram fixed{.Q = I,
                                     .q = numbers({-.6, 0}, {2}),
                                     .A = numbers({0, 1}, {1, 2}),
                                     .b = numbers({s}, {1}),
                                     .G = one,
                                     .h = numbers({.5}, {1})};
        expect_slopes(as(type, fixed), how, 0, 1, where);
      }
    }
  }
}

TEST(QuadraticBlocks, WhatIsUniqueIsFoundHoweverItIsScaled) {
  for (const double s : {1e4, 1e8, 1e9, 1e10, 1e12, 1e13}) {
    const std::string where = fmt::format("{}", s);
    const auto expect = [&](const QuadraticProgram& p, const std::vector<double>& z) {
      for (const bool sparse : {false, true}) {
        const Optimum found = sparse ? minimise_sparse(p) : minimise(p);
        EXPECT_EQ(reason_of(found), Reason::Converged) << where << found.z;
        expect_z(found, z, 1e-9, where);
      }
    };
    expect({.Q = diagonal({1, s}),
            .q = numbers({-1, -s}, {2}),
            .G = numbers({1, 0}, {1, 2}),
            .h = numbers({.5}, {1})},
           {.5, 1});
    expect({.Q = diagonal({1, 1, s}),
            .q = numbers({-1, 0, -s}, {3}),
            .A = numbers({1, 1, 0}, {1, 3}),
            .b = numbers({.2}, {1})},
           {.6, -.4, 1});
    expect({.Q = diagonal({2, 1, s}),
            .q = numbers({-2, -3, 2 * s}, {3}),
            .G = numbers({1, 1, 0}, {1, 3}),
            .h = numbers({1}, {1})},
           {0, 1, -2});
    const Tensor box = numbers({1, 0, 0, 1, -1, 0, 0, -1}, {4, 2});
    expect({.q = numbers({-1, -s}, {2}), .G = box, .h = numbers({1, 1, 0, 0}, {4})}, {1, 1});
    expect({.q = numbers({-1, -1}, {2}), .G = box, .h = numbers({1, s, 0, 0}, {4})}, {1, s});
  }
}

TEST(QuadraticBlocks, SmallNumbersCountWhereTheyAreAll) {
  for (const double s : {1e-6, 1e-9, 1e-12, 1e-20}) {
    const QuadraticProgram down{.Q = diagonal({1, -s}),
                                .q = numbers({-1, 0}, {2}),
                                .G = numbers({0, 1, 0, -1}, {2, 2}),
                                .h = numbers({1, 1}, {2})};
    EXPECT_EQ(reason_of(minimise(down)), Reason::NotConvex) << s;
    EXPECT_EQ(reason_of(minimise_sparse(down)), Reason::NotConvex) << s;
    const QuadraticProgram pulled{.Q = diagonal({1, 0}), .q = numbers({-1, s}, {2})};
    EXPECT_EQ(reason_of(minimise(pulled)), Reason::Unbounded) << s;
    EXPECT_EQ(reason_of(minimise_sparse(pulled)), Reason::Unbounded) << s;
  }
}

/// A block of numbers of about 1, then z of size `z`, the objective's slope of size `slope`.
QuadraticProgram drawn_block(std::mt19937_64& random, double z, double slope, at::ScalarType type) {
  const auto below = [&](int64_t n) { return int64_t(random() % uint64_t(n)); };
  const auto normal = [&](std::vector<int64_t> sizes) {
    return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(random()), at::kDouble);
  };
  const int64_t n = 1 + below(3), m = below(4), p = below(n);
  const bool flat = below(4) == 0;
  const Tensor half = normal({n, n - flat}), at = normal({n});
  QuadraticProgram b;
  b.Q = half.mm(half.t()) + (flat ? 0.0 : 0.1) * at::eye(n, at::kDouble);
  if (below(10) == 0) b.Q = -b.Q;
  b.q = flat && below(3) ? b.Q.mv(at) : normal({n});
  b.A = normal({p, n}), b.b = b.A.mv(at);
  b.G = normal({m, n}), b.h = b.G.mv(at) + normal({m}).abs() - (below(8) == 0 ? 2.0 : 0.0);
  b.Q = b.Q * (slope / z), b.q = b.q * slope, b.b = b.b * z, b.h = b.h * z;
  return as(type, b);
}

QuadraticProgram together(const std::vector<QuadraticProgram>& blocks) {
  QuadraticProgram all;
  for (auto member : {&QuadraticProgram::Q, &QuadraticProgram::A, &QuadraticProgram::G}) {
    std::vector<Tensor> own;
    for (const QuadraticProgram& b : blocks) own.push_back(b.*member);
    all.*member = at::block_diag(own);
  }
  for (auto member : {&QuadraticProgram::q, &QuadraticProgram::b, &QuadraticProgram::h}) {
    std::vector<Tensor> own;
    for (const QuadraticProgram& b : blocks) own.push_back(b.*member);
    all.*member = at::cat(own);
  }
  return all;
}

struct Outcome {
  Reason reason;
  int64_t weak;
  double units[6];             // of `values`
  std::vector<Tensor> values;  // z, nu, lam, and the gradients of their sum in q, b and h
};

Outcome outcome(QuadraticProgram p, bool sparse, double z = 1, double slope = 1) {
  for (Tensor* t : {&p.q, &p.b, &p.h}) *t = t->detach().clone().requires_grad_();
  const Optimum found = sparse ? minimise_sparse(p) : minimise(p);
  Outcome own{reason_of(found),
              found.weak.item<int64_t>(),
              {z, slope, slope, z / slope, 1, 1},
              {found.z, found.nu, found.lam}};
  if (own.reason != Reason::Converged) return own;
  const auto g = torch::autograd::grad({found.z.sum()}, {p.q, p.b, p.h}, {}, {}, false, true);
  own.values.insert(own.values.end(), g.begin(), g.end());
  return own;
}

TEST(QuadraticBlocks, RandomBlocksAreSolvedAsEachIsAlone) {
  std::mt19937_64 random(fuzz_seed(3));
  std::map<Reason, int64_t> counts;
  for (int64_t k = 0; k < 150 * fuzz_times() && !HasFailure(); ++k) {
    const auto type = k % 3 == 2 ? at::kFloat : at::kDouble;
    const bool sparse = k % 2 == 1;
    std::vector<QuadraticProgram> blocks;
    std::vector<Outcome> alone;
    for (uint64_t count = 2 + random() % 3; count > 0; --count) {
      const auto power = [&] { return std::pow(10.0, double(random() % 13)); };
      const double z = power(), slope = power();
      blocks.push_back(drawn_block(random, z, slope, type));
      alone.push_back(outcome(blocks.back(), sparse, z, slope));
    }
    Reason expected = Reason::Converged;
    for (const Reason worse : {Reason::NotUnique, Reason::Unbounded, Reason::MaxSteps,
                               Reason::Infeasible, Reason::NotConvex})
      for (const Outcome& own : alone)
        if (own.reason == worse) expected = worse;
    const Outcome all = outcome(together(blocks), sparse);
    const std::string where = fmt::format("program {}", k);
    ASSERT_EQ(all.reason, expected) << where;
    ++counts[expected];
    if (expected != Reason::Converged && expected != Reason::NotUnique) continue;
    int64_t weak = 0;
    for (const Outcome& own : alone) weak += own.weak;
    EXPECT_EQ(all.weak, weak) << where;
    for (size_t v = 0; v < all.values.size(); ++v) {
      int64_t from = 0;
      for (const Outcome& own : alone) {
        const int64_t count = own.values[v].numel();
        const Tensor mine = all.values[v].narrow(0, from, count);
        from += count;
        if (count == 0) continue;
        const double size = own.values[v].abs().max().item<double>(),
                     off = (mine - own.values[v]).abs().max().item<double>();
        EXPECT_LE(off, (type == at::kFloat ? 1e-5 : 1e-8) * std::max(size, 1e-2 * own.units[v]))
            << where << " " << v;
      }
    }
  }
  for (const Reason reason : {Reason::Converged, Reason::NotUnique, Reason::Infeasible,
                              Reason::Unbounded, Reason::NotConvex})
    EXPECT_GT(counts[reason], 2) << int(reason);
  EXPECT_LT(counts[Reason::MaxSteps], 5 * fuzz_times());
}

}  // namespace
}  // namespace deq::testing
