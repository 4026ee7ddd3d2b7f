// Sparse quadratic programs beside dense ones with the same numbers.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/base/error.h"
#include "deq/layers/quadratic_program.h"
#include "deq/layers/sparse_pattern.h"
#include "tests/layers/layer_suite.h"
#include "tests/layers/programs.h"

namespace deq::testing {
namespace {

using at::Tensor;

/// Zeros but for about `share`, the same places in all samples.
Tensor thinned(const Tensor& M, double share, uint64_t seed) {
  const Tensor own = at::rand({M.size(-2), M.size(-1)},
                              at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble);
  return M * own.lt(share);
}

/// B programs whose matrices are mostly zeros and in which some rows are active.
QuadraticProgram thin(int64_t B, int64_t n, int64_t p, int64_t m, uint64_t seed = 1) {
  const Tensor half = thinned(random({B, n, n}, seed), 2.0 / double(n), seed + 6),
               z = random({B, n}, seed + 1);
  QuadraticProgram program;
  program.Q = half.matmul(half.transpose(1, 2)) + 0.1 * at::eye(n, at::kDouble);
  program.q = random({B, n}, seed + 2);
  program.A = thinned(random({B, p, n}, seed + 3), 0.3, seed + 7);
  for (int64_t r = 0; r < p; ++r) program.A.select(1, r).select(1, r).fill_(1);
  program.b = program.A.matmul(z.unsqueeze(2)).squeeze(2);
  program.G = thinned(random({B, m, n}, seed + 4), 0.3, seed + 8);
  for (int64_t r = 0; r < m; ++r) program.G.select(1, r).select(1, (r + p) % n).fill_(1);
  program.h = program.G.matmul(z.unsqueeze(2)).squeeze(2) + random({B, m}, seed + 5).abs();
  return program;
}

SparseProgram sparse(const QuadraticProgram& p) {
  const auto of = [](const Tensor& M) { return M.defined() ? compressed(M) : SparseMatrix(); };
  return {of(p.Q), p.q, of(p.A), p.b, of(p.G), p.h};
}

double apart(const Tensor& a, const Tensor& b) {
  if (a.numel() == 0) return 0;
  return ((a - b).abs().max() / b.abs().max().clamp(1)).item<double>();
}

/// Values, reports and all gradients of sparse and of dense matrices.
void expect_same(QuadraticProgram p, const MinimiseOptions& options, double tolerance = 1e-9) {
  std::vector<Tensor> inputs;
  for (Tensor* t : {&p.Q, &p.q, &p.A, &p.b, &p.G, &p.h})
    if (t->defined()) inputs.push_back(t->requires_grad_());
  const Optimum dense = minimise(p, options), found = minimise(sparse(p), options);
  EXPECT_TRUE(at::equal(found.report.reason, dense.report.reason))
      << found.report.reason << dense.report.reason;
  EXPECT_TRUE(at::equal(found.active, dense.active));
  EXPECT_TRUE(at::equal(found.weak, dense.weak));
  EXPECT_LE(apart(found.z, dense.z), tolerance);
  EXPECT_LE(apart(found.nu, dense.nu), tolerance);
  EXPECT_LE(apart(found.lam, dense.lam), tolerance);
  EXPECT_LE(apart(found.certificate, dense.certificate), tolerance);
  const auto gradients = [&](const Optimum& o) {
    const Tensor loss = (o.z * at::arange(o.z.size(-1))).sum() + o.z.square().sum() +
                        o.lam.sin().sum() + (2 * o.nu).sum();
    return torch::autograd::grad({loss}, inputs, {}, {}, false, /*unused=*/true);
  };
  const auto right = gradients(dense), got = gradients(found);
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (inputs[k].numel() == 0) continue;
    const Tensor some =
        inputs[k].dim() == 3 ? inputs[k].detach().ne(0).any(0, true) : at::ones({}, at::kBool);
    // What stands in no place of the pattern has no gradient.
    EXPECT_LE(apart(got[k], right[k] * some), 10 * tolerance) << "input " << k;
  }
}

TEST(SparseProgram, IsTheDenseOne) {
  for (const auto& [n, p, m] : {std::tuple{1, 0, 1}, std::tuple{6, 2, 8}, std::tuple{30, 5, 40},
                                std::tuple{60, 0, 80}, std::tuple{12, 4, 0}, std::tuple{5, 0, 0}})
    expect_same(thin(7, n, p, m), kTight);
}

TEST(SparseProgram, IsTheDenseOneWithoutASolutionOrWithMany) {
  QuadraticProgram program = thin(10, 5, 1, 6);
  program.h[3].fill_(-100);
  program.G[3][1].copy_(-program.G[3][0]);
  program.Q[6].zero_();
  program.Q[7].neg_();
  program.G[8][1].copy_(program.G[8][0]);
  program.h[8][1].copy_(program.h[8][0]);
  program.q[4][1] = std::numeric_limits<double>::quiet_NaN();
  program.h[5][2] = std::numeric_limits<double>::infinity();
  program.h[9][2] = -std::numeric_limits<double>::infinity();
  const Optimum found = minimise(sparse(program), kTight);
  const auto reason = [&](int64_t i) { return Reason(found.report.reason[i].item<uint8_t>()); };
  EXPECT_EQ(reason(3), Reason::Infeasible);
  EXPECT_EQ(reason(7), Reason::NotConvex);
  EXPECT_EQ(reason(8), Reason::Converged);
  EXPECT_EQ(reason(4), Reason::NonFinite);
  EXPECT_EQ(reason(5), Reason::Converged);
  EXPECT_EQ(reason(9), Reason::NonFinite);
  QuadraticProgram finite = program;
  finite.q = program.q.nan_to_num();
  finite.h = program.h.clone();
  finite.h[9][2] = 1;
  for (const Degenerate& degenerate : {Degenerate::Inactive, Degenerate::Active,
                                       Degenerate::LeastNorm, Degenerate::Smoothed(1e-3)}) {
    MinimiseOptions options = kTight;
    options.degenerate = degenerate;
    expect_same(finite, options, 1e-8);
  }
}

/// Random programs of whole numbers: dependent, contradicting, touching rows, Q of any rank.
TEST(SparseProgram, AgreesOnWholeNumbers) {
  int64_t counts[12] = {};
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const int64_t B = 50, n = 1 + int64_t(seed % 4), p = int64_t(seed % 3), m = int64_t(seed % 6);
    const auto whole = [&](std::vector<int64_t> sizes, uint64_t k) {
      return at::randint(-2, 3, sizes, at::make_generator<at::CPUGeneratorImpl>(100 * seed + k),
                         at::kDouble);
    };
    const Tensor half = whole({B, n, int64_t(seed % 5)}, 1);
    QuadraticProgram program{.Q = half.matmul(half.transpose(1, 2)), .q = whole({B, n}, 2)};
    if (p > 0) program.A = whole({B, p, n}, 3), program.b = whole({B, p}, 4);
    if (m > 0) program.G = whole({B, m, n}, 5), program.h = whole({B, m}, 6) + 1;
    const Optimum dense = minimise(program, kTight), found = minimise(sparse(program), kTight);
    for (int64_t i = 0; i < B; ++i) {
      const uint8_t own = found.report.reason[i].item<uint8_t>();
      ++counts[own];
      ASSERT_EQ(own, dense.report.reason[i].item<uint8_t>()) << seed << " " << i;
      ASSERT_LE(apart(found.z[i], dense.z[i]), 1e-9) << seed << " " << i;
      ASSERT_LE(apart(found.lam[i], dense.lam[i]), 1e-8) << seed << " " << i;
    }
  }
  for (const Reason reason :
       {Reason::Converged, Reason::NotUnique, Reason::Infeasible, Reason::Unbounded})
    EXPECT_GT(counts[size_t(reason)], 40) << int(reason);
}

LayerCase layer_case(const std::string& name, const QuadraticProgram& program,
                     const std::string& shared, const MinimiseOptions& options = kTight) {
  LayerCase layer;
  layer.name = name;
  const SparseProgram all = sparse(program);
  for (const auto& [key, tensor] :
       {std::pair{"Q", all.Q.values}, std::pair{"q", all.q}, std::pair{"A", all.A.values},
        std::pair{"b", all.b}, std::pair{"G", all.G.values}, std::pair{"h", all.h}}) {
    if (!tensor.defined() || tensor.numel() == 0) continue;
    if (shared.find(key) != std::string::npos) {
      layer.shared[key] = tensor[0].clone();
    } else {
      layer.batched[key] = tensor;
    }
  }
  layer.run = [options, all](const Tensors& batched, const Tensors& own) {
    const auto get = [&](const char* key, const Tensor& before) {
      if (batched.count(key)) return batched.at(key);
      return own.count(key) ? own.at(key) : before;
    };
    SparseProgram p = all;
    p.Q.values = get("Q", p.Q.values);
    p.q = get("q", p.q);
    p.A.values = get("A", p.A.values);
    p.b = get("b", p.b);
    p.G.values = get("G", p.G.values);
    p.h = get("h", p.h);
    const Optimum found = minimise(p, options);
    Tensors outputs{{"z", found.z}};
    if (found.nu.numel() > 0) outputs["nu"] = found.nu;
    if (found.lam.numel() > 0) outputs["lam"] = found.lam;
    return LayerResult{outputs, found.report};
  };
  return layer;
}

TEST(SparseProgram, SamplesAreAlone) {
  check_samples_alone(layer_case("sparse", thin(5, 12, 2, 15), ""));
  check_samples_alone(layer_case("sparse, matrices shared", thin(5, 12, 2, 15), "QAG"));
  QuadraticProgram some = thin(6, 5, 1, 6);
  some.h[3].fill_(-100);
  some.G[3][1].copy_(-some.G[3][0]);
  some.Q[2].neg_();
  check_samples_alone(layer_case("sparse, some without a solution", some, ""));
}

TEST(SparseProgram, GradientsAreRight) {
  check_gradients(layer_case("sparse, by sample", thin(2, 5, 1, 6), ""), 1e-6, 1e-6);
  check_gradients(layer_case("sparse, shared", thin(3, 5, 1, 6), "QAbG"), 1e-6, 1e-6);
}

TEST(SparseProgram, SecondDerivativesAreThoseOfTheDenseOne) {
  QuadraticProgram p = thin(2, 4, 1, 5);
  for (Tensor* t : {&p.Q, &p.q, &p.A, &p.b, &p.G, &p.h}) t->requires_grad_();
  const std::vector<Tensor> inputs{p.Q, p.q, p.A, p.b, p.G, p.h};
  const auto second = [&](const Optimum& o) {
    const Tensor loss = o.z.pow(3).sum() + o.lam.square().sum() + o.nu.sin().sum();
    const auto first = torch::autograd::grad({loss}, {p.q, p.b, p.h}, {}, true, true);
    Tensor sum = at::zeros({}, at::kDouble);
    for (const Tensor& g : first) sum = sum + g.square().sum();
    return torch::autograd::grad({sum}, inputs, {}, {}, false, true);
  };
  const auto right = second(minimise(p, kTight)), got = second(minimise(sparse(p), kTight));
  for (size_t k = 0; k < inputs.size(); ++k)
    EXPECT_LE(apart(got[k], right[k] * (inputs[k].dim() > 2 ? inputs[k].detach().ne(0).any(0)
                                                            : at::ones({}, at::kBool))),
              1e-8)
        << k;
}

TEST(SparseProgram, WarmTakesTheRowsGivenAndNoStep) {
  const SparseProgram program = sparse(thin(9, 20, 2, 30));
  const Optimum cold = minimise(program, kTight);
  MinimiseOptions options = kTight;
  options.warm = &cold.active;
  const Optimum warm = minimise(program, options);
  EXPECT_TRUE(warm.report.converged());
  EXPECT_EQ(warm.report.steps.max().item<int64_t>(), 0);
  EXPECT_EQ(warm.factorisations.max().item<int64_t>(), 1);
  EXPECT_LE(apart(warm.z, cold.z), 1e-11);
  EXPECT_GT(cold.report.steps.min().item<int64_t>(), 2);
}

TEST(SparseProgram, FloatsAndNoBatch) {
  const QuadraticProgram p = thin(1, 8, 2, 9);
  SparseProgram one = sparse({p.Q[0], p.q[0], p.A[0], p.b[0], p.G[0], p.h[0]});
  for (Tensor* t : {&one.Q.values, &one.q, &one.A.values, &one.b, &one.G.values, &one.h})
    *t = t->to(at::kFloat).requires_grad_();
  const Optimum found = minimise(one), right = minimise(p);
  EXPECT_EQ(found.z.scalar_type(), at::kFloat);
  EXPECT_EQ(found.z.dim(), 1);
  EXPECT_LE(apart(found.z.to(at::kDouble), right.z[0]), 1e-5);
  const Tensor gradient = torch::autograd::grad({found.z.sum()}, {one.G.values})[0];
  EXPECT_EQ(gradient.sizes(), one.G.values.sizes());
  EXPECT_EQ(gradient.scalar_type(), at::kFloat);
}

TEST(SparseProgram, TooLargeToBeMadeDenseEndsWithoutASolution) {
  const int64_t n = 2001;
  const Tensor eye = at::arange(n + 1), at_each = at::arange(n), ones = at::ones({n}, at::kDouble);
  const SparseProgram good{.Q = {eye, at_each, ones}, .q = -ones};
  EXPECT_TRUE(minimise(good).report.converged());
  EXPECT_LE(apart(minimise(good).z, ones), 1e-12);
  SparseProgram flat = good;  // unbounded, which only dense matrices would prove
  flat.Q.values = at::zeros({n}, at::kDouble);
  const Optimum found = minimise(flat);
  EXPECT_EQ(found.report.reason.item<uint8_t>(), uint8_t(Reason::MaxSteps));
  EXPECT_EQ(found.z.abs().max().item<double>(), 0);
}

/// Total variation of 1,000 numbers, of a matrix that is not to be made dense: by its conditions.
TEST(SparseProgram, ALargeOneMeetsItsConditions) {
  const int64_t L = 1000, m = L - 1, n = L + m;
  std::vector<int64_t> begin{0}, columns;
  std::vector<double> values;
  for (const double sign : {1.0, -1.0}) {
    for (int64_t i = 0; i < m; ++i) {
      for (const int64_t j : {i, i + 1, L + i}) columns.push_back(j);
      for (const double value : {sign, -sign, -1.0}) values.push_back(value);
      begin.push_back(int64_t(columns.size()));
    }
  }
  const Tensor curved = at::arange(n).lt(L).to(at::kDouble);
  const Tensor y = 5 * random({L}, 3) + 20 * at::sin(at::arange(L, at::kDouble) / 100);
  const SparseProgram p{.Q = {at::arange(n + 1), at::arange(n), curved},
                        .q = at::cat({-y, at::full({m}, 3.0, at::kDouble)}),
                        .G = {at::tensor(begin), at::tensor(columns), at::tensor(values)},
                        .h = at::zeros({2 * m}, at::kDouble)};
  const Optimum found = minimise(p, kTight);
  ASSERT_TRUE(found.report.converged()) << describe(found.report);
  Tensor slack = at::zeros({2 * m}, at::kDouble), force = curved * found.z + p.q;
  for (int64_t r = 0; r < 2 * m; ++r) {
    for (int64_t k = begin[size_t(r)]; k < begin[size_t(r) + 1]; ++k) {
      const int64_t j = columns[size_t(k)];
      slack.data_ptr<double>()[r] -= values[size_t(k)] * found.z.data_ptr<double>()[j];
      force.data_ptr<double>()[j] += values[size_t(k)] * found.lam.data_ptr<double>()[r];
    }
  }
  EXPECT_LE(force.abs().max().item<double>(), 1e-9);
  EXPECT_GE(slack.min().item<double>(), -1e-9);
  EXPECT_GE(found.lam.min().item<double>(), -1e-9);
  EXPECT_LE((slack * found.lam).abs().max().item<double>(), 1e-8);
}

TEST(SparseProgram, WhatDoesNotFitIsNamed) {
  const SparseProgram good = sparse(thin(2, 3, 1, 2));
  const auto error = [](const SparseProgram& program) {
    try {
      minimise(program);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  SparseProgram bad = good;
  bad.q = Tensor();
  EXPECT_EQ(error(bad), "q is undefined; expected (n) or (B, n)");
  bad = good;
  bad.G.values = Tensor();
  EXPECT_EQ(error(bad), "G.values is undefined; expected G with h, or neither");
  bad = good;
  bad.G.columns = at::zeros_like(good.G.columns) + 3;
  EXPECT_EQ(error(bad), "G.columns[0] = 3; expected 0 to 2");
  bad = good;
  bad.G.columns = at::zeros_like(good.G.columns);
  EXPECT_NE(error(bad).find("expected ascending columns in a row"), std::string::npos);
  bad = good;
  bad.Q.row_begin = good.Q.row_begin + 1;
  EXPECT_NE(error(bad).find("Q.row_begin = [4]; expected ascending numbers from 0 to"),
            std::string::npos)
      << error(bad);
  bad = good;
  bad.A.values = good.A.values.narrow(1, 0, 1);
  EXPECT_NE(error(bad).find("A.values = [2, 1]; expected [B, "), std::string::npos) << error(bad);
  bad = good;
  bad.h = at::zeros({2, 5}, at::kDouble);
  EXPECT_EQ(error(bad), "h = [2, 5]; expected [B, 2]");
  bad = good;
  bad.G.values = good.G.values.to(at::kFloat);
  EXPECT_EQ(error(bad), "G.values is of type Float; expected Double, q's");
  bad = good;
  bad.Q = compressed(at::ones({4, 3}, at::kDouble));
  EXPECT_EQ(error(bad), "Q has 4 rows; expected 3, q's length");
}

TEST(SparseProgram, ItsPatternIsFoundOnce) {
  const RowPattern Q{{0, 1, 2}, {0, 1}}, none{{0}, {}}, G{{0, 2}, {0, 1}};
  EXPECT_EQ(sparse_pattern(Q, none, G), sparse_pattern(Q, none, G));
  EXPECT_NE(sparse_pattern(Q, none, G), sparse_pattern(Q, G, none));
}

}  // namespace
}  // namespace deq::testing
