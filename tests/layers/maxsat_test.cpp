#include "deq/layers/maxsat.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>
#include <limits>

#include "deq/base/error.h"
#include "tests/layers/layer_suite.h"

namespace deq::testing {
namespace {

using at::Tensor;

const MaxsatSolve kExact{.stop = {.max_steps = 20000, .rel_tol = 1e-13},
                         .adjoint = {.max_steps = 4000, .rel_tol = 1e-13}};

Tensor random(at::IntArrayRef sizes, uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::rand(sizes, generator, at::kDouble);
}

struct Problem {
  Tensor S, z, known;
};

/// Probabilities for the first `given` variables, or `exact` truth values.
Problem random_problem(int64_t B, int64_t n, int64_t auxiliary, int64_t m, int64_t given,
                       bool exact = false) {
  Problem p;
  p.S = (random({1 + n + auxiliary, m}, 1) - 0.5) * 0.7;
  p.z = random({B, n}, 2) * 0.8 + 0.1;
  if (exact) p.z = p.z.round();
  p.known = at::arange(n).lt(given).expand({B, n}).contiguous();
  return p;
}

Maxsat layer_of(const Problem& p, int64_t rank = 0, uint64_t seed = 0) {
  const int64_t n = p.z.size(1);
  return Maxsat(p.S,
                {.variables = n, .auxiliary = p.S.size(0) - 1 - n, .rank = rank, .seed = seed});
}

/// S and z are inputs.
LayerResult solved(const Tensor& S, const Tensor& z, const Tensor& known, const MaxsatSolve& how) {
  const Maxsat layer(S.detach(), {.variables = z.size(1), .auxiliary = S.size(0) - 1 - z.size(1)});
  const Assignment a = layer.assign(S, z, known, how);
  return {{{"z", a.z}}, a.report};
}

TEST(Maxsat, SamplesAreAlone) {
  for (const auto type : {at::kDouble, at::kFloat}) {
    const Problem p = random_problem(5, 9, 4, 12, 4);
    Tensor known = p.known.clone();
    known[1][6] = true;
    known[3][2] = false;
    const LayerCase layer{"maxsat",
                          {{"z", p.z.to(type)}, {"known", known}},
                          {{"S", p.S.to(type)}},
                          [](const Tensors& batched, const Tensors& shared) {
                            MaxsatSolve how;
                            how.stop.rel_tol = 1e-5;
                            return solved(shared.at("S"), batched.at("z"), batched.at("known"),
                                          how);
                          }};
    check_samples_alone(layer);
  }
}

void expect_gradients(const Problem& p, const MaxsatSolve& how, bool of_inputs = true) {
  Tensors batched{{"z", p.z}};
  if (!of_inputs) batched["z"] = p.z.round().to(at::kLong);
  check_gradients({"maxsat", batched, {{"S", p.S}}, [&](const Tensors& in, const Tensors& shared) {
                     const LayerResult found =
                         solved(shared.at("S"), in.at("z").to(at::kDouble), p.known, how);
                     EXPECT_TRUE(found.report.converged()) << describe(found.report);
                     return found;
                   }});
}

TEST(Maxsat, GradientsOfClausesAndInputs) {
  expect_gradients(random_problem(3, 6, 3, 9, 3), kExact);
  expect_gradients(random_problem(2, 5, 2, 12, 4), kExact);
}

TEST(Maxsat, GradientsWithDirections) {
  const Problem p = random_problem(2, 6, 3, 9, 3);
  Tensor u = random({2, 6, 8}, 5) - 0.5;
  u.select(2, 0).zero_();
  MaxsatSolve how = kExact;
  how.directions = u / u.norm(2, 2, true);
  expect_gradients(p, how);
}

/// Where inputs are 0 or 1 the free vectors can be turned: singular, and no gradient in z.
TEST(Maxsat, GradientsAtTruthValues) {
  const Problem p = random_problem(3, 6, 3, 9, 3, true);
  expect_gradients(p, kExact, false);
  const Tensor z = p.z.clone().requires_grad_();
  const Assignment a = layer_of(p)(z, p.known, kExact);
  const Tensor g = at::arange(18, at::kDouble).view({3, 6}) + 1;
  const Tensor dz = torch::autograd::grad({(a.z * g).sum()}, {z})[0];
  EXPECT_TRUE(at::equal(dz, at::where(p.known, g, at::zeros_like(g))));
}

/// An input at 1 beside one between 0 and 1, which holds the free vectors: the derivative from
/// within is the one there is.
TEST(Maxsat, GradientOfAnInputAtOneBesideAnother) {
  Problem p = random_problem(1, 6, 3, 9, 3);
  p.z[0][0] = 1.0;
  const Maxsat layer = layer_of(p);
  const auto value = [&](const Tensor& z) { return layer(z, p.known, kExact).z[0][4]; };
  const auto below = [&](double h) {
    Tensor z = p.z.clone();
    z[0][0] = 1 - h;
    return value(z).item<double>();
  };
  const Tensor z = p.z.clone().requires_grad_();
  const double got = torch::autograd::grad({value(z)}, {z})[0][0][0].item<double>();
  const double h = 1e-4;
  EXPECT_NEAR(got, (3 * below(0) - 4 * below(h) + below(2 * h)) / (2 * h), 1e-6);
  EXPECT_GT(std::abs(got), 1e-3);
}

/// x3 = x1 xor x2, which leaves x3 without a pull: g = 0.
Maxsat silent_xor() {
  return Maxsat::from_clauses("p cnf 4 5\n-1 -2 -3 0\n1 2 -3 0\n1 -2 3 0\n-1 2 3 0\n4 0\n");
}

TEST(Maxsat, SilentVariables) {
  const Maxsat layer = silent_xor();
  const Tensor z = at::tensor({0.0, 1.0, 0.3, 0.0, 1.0, 0.4, 0.0, 0.0}, at::kDouble)
                       .view({2, 4})
                       .requires_grad_();
  const Tensor known = at::tensor({1, 1, 0, 0, 1, 1, 0, 0}, at::kByte).view({2, 4});
  for (const Silent silent : {Silent::Drop, Silent::Hold}) {
    MaxsatSolve how = kExact;
    how.silent = silent;
    const Assignment a = layer(z, known, how);
    EXPECT_EQ(a.report.count(Reason::NotUnique), 2) << describe(a.report);
    EXPECT_NEAR(a.z[0][2].item<double>(), 0.5, 1e-12);
    EXPECT_NEAR(a.z[0][3].item<double>(), 1, 1e-12);
    EXPECT_TRUE(a.vectors.isfinite().all().item<bool>());
    const auto gradients = torch::autograd::grad({a.z.sum()}, {z, layer.S()});
    EXPECT_TRUE(at::equal(gradients[0], known.to(at::kDouble)));
    EXPECT_EQ(gradients[1].abs().max().item<double>(), 0) << "x4 is saturated";
  }
}

/// A variable that stands in no clause says 1/2, and the others keep their gradient.
TEST(Maxsat, VariablesWithoutClauses) {
  Problem p = random_problem(2, 6, 3, 9, 3);
  p.S[5].zero_();
  const Tensor S = p.S.clone().requires_grad_();
  const Assignment a = layer_of(p).assign(S, p.z, p.known, kExact);
  EXPECT_EQ(a.report.count(Reason::NotUnique), 2);
  EXPECT_EQ(a.z[1][4].item<double>(), 0.5);
  const Tensor gradient = torch::autograd::grad({a.z.sum()}, {S})[0];
  EXPECT_GT(gradient[6].abs().max().item<double>(), 1e-3);
  EXPECT_EQ(gradient[5].abs().max().item<double>(), 0);
}

TEST(Maxsat, AllKnownNoneKnownNoClauses) {
  Problem p = random_problem(2, 6, 0, 9, 6);
  Tensor z = p.z.clone().requires_grad_();
  Assignment a = layer_of(p)(z, p.known, kExact);
  EXPECT_TRUE(a.report.converged());
  EXPECT_TRUE(at::equal(a.z, p.z));
  EXPECT_TRUE(at::equal(torch::autograd::grad({a.z.sum()}, {z})[0], at::ones_like(p.z)));

  p.known = at::zeros({6}, at::kBool);
  expect_gradients(p, kExact);
  a = layer_of(p)(at::full({2, 6}, std::numeric_limits<double>::quiet_NaN(), at::kDouble), p.known,
                  kExact);
  EXPECT_TRUE(a.report.converged()) << "what is not known is not read";

  p.S = at::zeros({7, 0}, at::kDouble);
  const Tensor S = p.S.clone().requires_grad_();
  a = layer_of(p).assign(S, z, p.known, kExact);
  EXPECT_EQ(a.report.count(Reason::NotUnique), 2);
  EXPECT_TRUE(a.z.eq(0.5).all().item<bool>());
  EXPECT_EQ(torch::autograd::grad({a.z.sum()}, {S})[0].numel(), 0);
}

TEST(Maxsat, ClausesThatAreNotFinite) {
  Problem p = random_problem(2, 6, 2, 9, 3);
  Tensor S = p.S.clone();
  S[2][3] = std::numeric_limits<double>::quiet_NaN();
  S.requires_grad_();
  Tensor z = p.z.clone().requires_grad_();
  const Assignment a = layer_of(p).assign(S, z, p.known);
  EXPECT_EQ(a.report.count(Reason::NonFinite), 2);
  EXPECT_TRUE(a.z.eq(0.5).all().item<bool>());
  EXPECT_EQ(torch::autograd::grad({a.z.sum()}, {z})[0].abs().max().item<double>(), 0);
}

TEST(Maxsat, ScalesOfClausesDoNotMatter) {
  const Problem p = random_problem(2, 6, 2, 9, 3);
  const Tensor z = layer_of(p)(p.z, p.known, kExact).z;
  for (const double size : {1e-18, 1e18}) {
    const Maxsat layer((p.S * size).to(at::kFloat), {.variables = 6, .auxiliary = 2});
    const Assignment a =
        layer(p.z.to(at::kFloat), p.known, {.stop = {.max_steps = 1000, .rel_tol = 1e-6}});
    EXPECT_LT((a.z - z).abs().max().item<double>(), 2e-5) << describe(a.report);
  }
}

TEST(Maxsat, FloatsAgree) {
  const Problem p = random_problem(4, 8, 3, 12, 4);
  Tensor z[2], gradient[2];
  for (const int k : {0, 1}) {
    const auto type = k ? at::kFloat : at::kDouble;
    MaxsatSolve how = kExact;
    if (k) how.stop.rel_tol = how.adjoint.rel_tol = 1e-7;
    const Tensor S = p.S.to(type, false, /*copy=*/true).requires_grad_();
    const Assignment a = layer_of(p).assign(S, p.z.to(type), p.known, how);
    z[k] = a.z.detach().to(at::kDouble);
    gradient[k] = torch::autograd::grad({a.z.square().sum()}, {S})[0].to(at::kDouble);
  }
  EXPECT_LT((z[0] - z[1]).abs().max().item<double>(), 2e-5);
  EXPECT_LT(((gradient[0] - gradient[1]).abs().max() / gradient[0].abs().max()).item<double>(),
            1e-4);
}

TEST(Maxsat, WarmStartsAndSeeds) {
  const Problem p = random_problem(3, 30, 10, 40, 10);
  MaxsatSolve how;
  how.stop = {.max_steps = 2000, .rel_tol = 1e-9};
  const Assignment cold = layer_of(p)(p.z, p.known, how);
  const Assignment again = layer_of(p)(p.z, p.known, how);
  EXPECT_TRUE(at::equal(cold.z, again.z));
  const Assignment other = layer_of(p, 0, 7)(p.z, p.known, kExact);
  EXPECT_TRUE(other.report.converged());
  how.warm = cold.vectors;
  const Assignment warm = layer_of(p)(p.z, p.known, how);
  EXPECT_LE(warm.report.steps.max().item<int64_t>(), 2);
  EXPECT_LT((warm.z - cold.z).abs().max().item<double>(), 1e-7);
}

TEST(Maxsat, AndersonTakesHalfTheSweeps) {
  const Problem p = random_problem(4, 40, 10, 50, 12, true);
  MaxsatSolve how;
  how.stop = {.max_steps = 20000, .rel_tol = 1e-6};
  const Assignment mixed = layer_of(p)(p.z, p.known, how);
  how.memory = 0;
  const Assignment plain = layer_of(p)(p.z, p.known, how);
  EXPECT_TRUE(mixed.report.converged() && plain.report.converged());
  EXPECT_LT(2 * mixed.report.steps.sum().item<int64_t>(), plain.report.steps.sum().item<int64_t>());
}

/// The least |V^T S|^2 over truth values of the unknown.
double least_of_truth_values(const Tensor& S, const Tensor& z, int64_t given) {
  const int64_t n = z.size(0), free = n - given;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t bits = 0; bits < int64_t(1) << free; ++bits) {
    Tensor v = at::ones({1 + n}, at::kDouble);
    for (int64_t i = 0; i < n; ++i)
      v[1 + i] = i < given ? 2 * z[i].item<double>() - 1 : (bits >> (i - given) & 1 ? 1.0 : -1.0);
    least = std::min(least, at::mv(S.t(), v).square().sum().item<double>());
  }
  return least;
}

/// The relaxation is a bound from below, and where it says truth values they are the best ones.
TEST(Maxsat, AgainstAllTruthValues) {
  int tight = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const int64_t n = 6, given = 3;
    const Tensor S = random({1 + n, 7}, 100 + seed) - 0.5;
    const Tensor z = random({1, n}, 200 + seed).round();
    const Assignment a = Maxsat(S, {.variables = n})(z, at::arange(n).lt(given), kExact);
    ASSERT_TRUE(a.report.converged()) << describe(a.report);
    const double found = a.objective.item<double>(), least = least_of_truth_values(S, z[0], given);
    EXPECT_LE(found, least + 1e-9);
    if ((a.z - a.z.round()).abs().max().item<double>() > 1e-6) continue;
    ++tight;
    EXPECT_NEAR(found, least, 1e-9);
  }
  EXPECT_GE(tight, 5);
}

void expect_error(const std::function<void()>& f, const std::string& text) {
  try {
    f();
    ADD_FAILURE() << "no error: " << text;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(Maxsat, BadInput) {
  const Problem p = random_problem(2, 6, 2, 9, 3);
  const Maxsat layer = layer_of(p);
  Tensor z = p.z.clone();
  z[1][5] = 7.0;
  EXPECT_NO_THROW(layer(z, p.known));
  z[1][2] = 1.5;
  expect_error([&] { layer(z, p.known); }, "maxsat: z[1, 2] = 1.5 is known; expected it in [0, 1]");
  expect_error([&] { layer(p.z.to(at::kFloat), p.known); }, "z is Float; expected Double, as S");
  expect_error([&] { layer(p.z.narrow(1, 0, 5), p.known); }, "expected (batch, 6)");
  expect_error([&] { layer(p.z, p.known.to(at::kLong)); }, "expected Bool or Byte");
  expect_error([&] { layer(p.z, p.known[0].narrow(0, 0, 2)); }, "known is [2]");
  expect_error([&] { Maxsat({.clauses = 3}); }, "MaxsatOptions.variables = 0; expected >= 1");
  expect_error([&] { layer(p.z, p.known, {.memory = 17}); }, "memory = 17; expected 0 to 16");
  const Tensor tilted = at::ones({6, 8}, at::kDouble);
  expect_error([&] { layer(p.z, p.known, {.directions = tilted}); }, "expected unit vectors");
  expect_error([&] { layer(p.z, p.known, {.warm = tilted}); }, "warm vectors are [6, 8]");
  const Tensor again = p.z.clone().requires_grad_();
  const Tensor out = layer(again, p.known).z.sum();
  expect_error([&] { torch::autograd::grad({out}, {again}, {}, true, true); }, "create_graph");
}

TEST(Maxsat, InitialClauses) {
  const MaxsatOptions sizes{.variables = 20, .auxiliary = 9, .clauses = 30};
  const Maxsat a(sizes), b(sizes);
  EXPECT_TRUE(at::equal(a.S(), b.S()));
  EXPECT_EQ(a.options().rank, 16);
  EXPECT_NEAR(a.S().std().item<double>(), std::sqrt(0.5 / 60), 0.01);
  EXPECT_EQ(a.named_parameters().size(), 1u);
}

}  // namespace
}  // namespace deq::testing
