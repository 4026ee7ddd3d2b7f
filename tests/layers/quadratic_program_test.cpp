#include "deq/layers/quadratic_program.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/base/error.h"
#include "tests/layers/layer_suite.h"
#include "tests/layers/programs.h"

namespace deq::testing {
namespace {

using at::Tensor;

QuadraticProgram program_of(const Tensors& a, const Tensors& b) {
  const auto get = [&](const char* name) {
    if (a.count(name)) return a.at(name);
    return b.count(name) ? b.at(name) : Tensor();
  };
  return {get("Q"), get("q"), get("A"), get("b"), get("G"), get("h")};
}

LayerCase layer_case(const std::string& name, const QuadraticProgram& program,
                     const std::string& shared = "", const MinimiseOptions& options = kTight) {
  LayerCase layer;
  layer.name = name;
  for (const auto& [key, tensor] :
       {std::pair{"Q", program.Q}, std::pair{"q", program.q}, std::pair{"A", program.A},
        std::pair{"b", program.b}, std::pair{"G", program.G}, std::pair{"h", program.h}}) {
    if (!tensor.defined() || tensor.numel() == 0) continue;
    if (shared.find(key) != std::string::npos) {
      layer.shared[key] = tensor[0].clone();
    } else {
      layer.batched[key] = tensor;
    }
  }
  layer.run = [options](const Tensors& batched, const Tensors& own) {
    const Optimum found = minimise(program_of(batched, own), options);
    Tensors outputs{{"z", found.z}};
    if (found.nu.numel() > 0) outputs["nu"] = found.nu;
    if (found.lam.numel() > 0) outputs["lam"] = found.lam;
    return LayerResult{outputs, found.report};
  };
  return layer;
}

TEST(QuadraticProgram, MeetsItsConditionsInLanesAndAlone) {
  for (const auto& [n, p, m] :
       {std::tuple{1, 0, 1}, std::tuple{10, 0, 10}, std::tuple{7, 3, 12}, std::tuple{32, 5, 40},
        std::tuple{33, 4, 20}, std::tuple{60, 0, 80}}) {
    const QuadraticProgram program = drawn(11, n, p, m);
    const Optimum found = minimise(program, kTight);
    EXPECT_TRUE(found.report.converged()) << n;
    EXPECT_LE(found.report.worst_residual(), 1e-11);
    EXPECT_LE(conditions(program, found), 1e-10) << n;
    EXPECT_EQ(found.certificate.abs().max().item<double>(), 0);
  }
}

TEST(QuadraticProgram, SamplesAreAlone) {
  check_samples_alone(layer_case("lanes", drawn(11, 6, 2, 8)));
  check_samples_alone(layer_case("one at a time", drawn(3, 35, 3, 20)));
  check_samples_alone(layer_case("matrices shared", drawn(5, 6, 2, 8), "QAG"));
}

TEST(QuadraticProgram, SamplesAreAloneBesideOnesWithoutSolution) {
  QuadraticProgram program = drawn(10, 5, 1, 6);
  program.h[3].fill_(-100);
  program.G[3][1].copy_(-program.G[3][0]);
  program.Q[6].zero_();
  program.Q[7].neg_();
  program.G[8][1].copy_(program.G[8][0]);
  program.h[8][1].copy_(program.h[8][0]);
  const Optimum found = minimise(program, kTight);
  EXPECT_EQ(found.report.reason[3].item<uint8_t>(), uint8_t(Reason::Infeasible));
  EXPECT_EQ(found.report.reason[7].item<uint8_t>(), uint8_t(Reason::NotConvex));
  EXPECT_EQ(found.report.reason[8].item<uint8_t>(), uint8_t(Reason::Converged));
  check_samples_alone(layer_case("some without a solution", program));
}

TEST(QuadraticProgram, GradientsAreRight) {
  check_gradients(layer_case("by sample", drawn(2, 4, 1, 5)), 1e-6, 1e-6);
  check_gradients(layer_case("shared", drawn(3, 4, 1, 5), "QAbG"), 1e-6, 1e-6);
  check_gradients(layer_case("one at a time", drawn(1, 34, 0, 3), "QG"), 1e-6, 1e-6);
}

TEST(QuadraticProgram, SecondDerivativesAreRight) {
  const QuadraticProgram program = drawn(2, 3, 1, 4);
  LayerCase first = layer_case("second derivatives", program, "QA");
  const auto layer = first.run;
  // Sums of squares of first derivatives are the outputs.
  first.run = [layer](const Tensors& batched, const Tensors& shared) {
    Tensors a, b;
    std::vector<Tensor> inputs;
    const auto own = [&](const Tensors& from, Tensors& to) {
      for (const auto& [name, t] : from) {
        to[name] = t.requires_grad() ? t : t.detach().clone().requires_grad_();
        inputs.push_back(to[name]);
      }
    };
    own(batched, a);
    own(shared, b);
    const LayerResult result = layer(a, b);
    Tensor loss = result.outputs.at("z").square().sum() + result.outputs.at("lam").pow(3).sum() +
                  result.outputs.at("nu").sin().sum();
    const auto gradients =
        torch::autograd::grad({loss}, inputs, {}, /*retain_graph=*/true, /*create_graph=*/true);
    Tensor sum = at::zeros({1}, at::kDouble);
    for (const Tensor& g : gradients) sum = sum + (g * g).sum() + g.sin().sum();
    return LayerResult{{{"sum", sum}}, result.report};
  };
  check_gradients(first, 1e-6, 1e-5);
}

TEST(QuadraticProgram, SharedDataHaveTheSumOfTheBatch) {
  const QuadraticProgram program = drawn(4, 5, 2, 6);
  QuadraticProgram shared = program, repeated = program;
  shared.Q = program.Q[0].clone().requires_grad_();
  repeated.Q = program.Q[0].clone().expand({4, 5, 5}).contiguous().requires_grad_();
  const Optimum one = minimise(shared, kTight), all = minimise(repeated, kTight);
  EXPECT_TRUE(at::equal(one.z, all.z));
  const Tensor sum = torch::autograd::grad({one.z.sum()}, {shared.Q})[0];
  const Tensor each = torch::autograd::grad({all.z.sum()}, {repeated.Q})[0];
  EXPECT_TRUE(at::allclose(sum, each.sum(0), 1e-12, 1e-12));
}

TEST(QuadraticProgram, WithoutABatchHasNone) {
  const QuadraticProgram program = drawn(1, 4, 1, 3);
  const QuadraticProgram alone{program.Q[0], program.q[0], program.A[0],
                               program.b[0], program.G[0], program.h[0]};
  const Optimum one = minimise(alone), all = minimise(program);
  EXPECT_EQ(one.z.dim(), 1);
  EXPECT_EQ(one.active.dim(), 1);
  EXPECT_TRUE(at::equal(one.z, all.z[0]) && at::equal(one.lam, all.lam[0]));
}

TEST(QuadraticProgram, WarmTakesTheRowsGivenAndNoStep) {
  for (const int64_t n : {8, 40}) {
    const QuadraticProgram program = drawn(9, n, 2, 12);
    const Optimum cold = minimise(program, kTight);
    MinimiseOptions options = kTight;
    options.warm = &cold.active;
    const Optimum warm = minimise(program, options);
    EXPECT_TRUE(warm.report.converged());
    EXPECT_EQ(warm.report.steps.max().item<int64_t>(), 0);
    EXPECT_EQ(warm.factorisations.max().item<int64_t>(), 1);
    EXPECT_TRUE(at::allclose(cold.z, warm.z, 1e-11, 1e-11));
    QuadraticProgram moved = program;
    moved.q = program.q + 0.05 * random({9, n}, 77);
    const Optimum near = minimise(moved, options), wanted = minimise(moved, kTight);
    EXPECT_TRUE(near.report.converged());
    EXPECT_TRUE(at::allclose(near.z, wanted.z, 1e-10, 1e-10));
    const Tensor wrong = at::ones({9, 12}, at::kBool);
    options.warm = &wrong;
    const Optimum from_wrong = minimise(program, options);
    EXPECT_TRUE(from_wrong.report.converged());
    EXPECT_TRUE(at::allclose(from_wrong.z, cold.z, 1e-10, 1e-10));
  }
}

TEST(QuadraticProgram, FloatsAreSolvedToTheirPrecision) {
  const QuadraticProgram program = drawn(6, 9, 2, 10);
  QuadraticProgram floats = program;
  for (Tensor* t : {&floats.Q, &floats.q, &floats.A, &floats.b, &floats.G, &floats.h})
    *t = t->to(at::kFloat).requires_grad_();
  QuadraticProgram same = floats;
  for (Tensor* t : {&same.Q, &same.q, &same.A, &same.b, &same.G, &same.h})
    *t = t->detach().to(at::kDouble).requires_grad_();
  const Optimum found = minimise(floats), wanted = minimise(same);
  EXPECT_EQ(found.z.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::allclose(found.z.to(at::kDouble), wanted.z, 1e-6, 1e-6));
  const Tensor got = torch::autograd::grad({found.z.sum()}, {floats.G})[0];
  const Tensor right = torch::autograd::grad({wanted.z.sum()}, {same.G})[0];
  EXPECT_EQ(got.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::allclose(got.to(at::kDouble), right, 2e-5, 2e-5));
}

TEST(QuadraticProgram, AdjointIsReported) {
  QuadraticProgram program = drawn(5, 6, 1, 7);
  program.q.requires_grad_();
  const Optimum found = minimise(program);
  EXPECT_FALSE(found.adjoint().reason.defined());
  torch::autograd::grad({found.z.sum()}, {program.q});
  EXPECT_TRUE(found.adjoint().converged());
  EXPECT_LE(found.adjoint().worst_residual(), 1e-12);
}

/// minimise |z|^2 / 2 where z_1 <= 0 touches without pressing.
TEST(QuadraticProgram, WeaklyActiveRowsAreWhatTheOptionSays) {
  QuadraticProgram program{.Q = at::eye(2, at::kDouble),
                           .q = at::zeros({2}, at::kDouble).requires_grad_(),
                           .G = at::eye(2, at::kDouble),
                           .h = at::tensor({0.0, 1.0}, at::kDouble)};
  const auto gradient = [&](const Degenerate& degenerate) {
    MinimiseOptions options = kTight;
    options.degenerate = degenerate;
    const Optimum found = minimise(program, options);
    EXPECT_TRUE(found.report.converged());
    EXPECT_EQ(found.weak.item<int64_t>(), 1);
    return torch::autograd::grad({found.z.sum()}, {program.q})[0];
  };
  EXPECT_TRUE(at::allclose(gradient(Degenerate::Inactive), at::tensor({-1.0, -1.0}, at::kDouble)));
  EXPECT_TRUE(at::allclose(gradient(Degenerate::Active), at::tensor({0.0, -1.0}, at::kDouble)));
  EXPECT_TRUE(at::allclose(gradient(Degenerate::LeastNorm), at::tensor({0.0, -1.0}, at::kDouble)));
}

/// minimise (z - c)^2 / 2 where z <= 0: with a barrier, (c - z)(-z) = kappa.
TEST(QuadraticProgram, SmoothedIsTheDerivativeWithABarrier) {
  MinimiseOptions options = kTight;
  options.degenerate = Degenerate::Smoothed(0.01);
  for (const double c : {-1.0, 0.0, 1.0}) {
    QuadraticProgram program{.Q = at::ones({1, 1}, at::kDouble),
                             .q = at::full({1}, -c, at::kDouble).requires_grad_(),
                             .G = at::ones({1, 1}, at::kDouble),
                             .h = at::zeros({1}, at::kDouble)};
    const Optimum found = minimise(program, options);
    EXPECT_NEAR(found.z.item<double>(), std::min(c, 0.0), 1e-12);
    const double dq = torch::autograd::grad({found.z.sum()}, {program.q})[0].item<double>();
    EXPECT_NEAR(dq, -0.5 * (1 - c / std::sqrt(c * c + 0.04)), 1e-8) << c;
  }
}

TEST(QuadraticProgram, EmptyBatchesAndNoConstraints) {
  const Optimum none = minimise(drawn(0, 3, 1, 2));
  EXPECT_EQ(none.z.size(0), 0);
  EXPECT_TRUE(none.report.converged());
  QuadraticProgram free = drawn(3, 4, 0, 0);
  const Optimum found = minimise({.Q = free.Q, .q = free.q}, kTight);
  EXPECT_TRUE(found.report.converged());
  EXPECT_TRUE(at::allclose(free.Q.matmul(found.z.unsqueeze(2)).squeeze(2), -free.q));
}

TEST(QuadraticProgram, WhatDoesNotFitIsNamed) {
  const QuadraticProgram good = drawn(2, 3, 1, 2);
  const auto error = [](const QuadraticProgram& program, const MinimiseOptions& options = {}) {
    try {
      minimise(program, options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(error({}), "q is undefined; expected (n) or (B, n)");
  QuadraticProgram bad = good;
  bad.b = Tensor();
  EXPECT_EQ(error(bad), "b is undefined; expected A with b, or neither");
  bad = good;
  bad.G = at::zeros({2, 2, 4}, at::kDouble);
  EXPECT_EQ(error(bad), "G = [2, 2, 4]; expected [B, 2, 3]");
  bad = good;
  bad.h = at::zeros({3, 2}, at::kDouble);
  EXPECT_EQ(error(bad), "h = [3, 2]; expected a batch of 2, as before it");
  bad = good;
  bad.Q = bad.Q.to(at::kFloat);
  EXPECT_EQ(error(bad), "Q is of type Float; expected Double, q's");
  bad = good;
  bad.q = at::zeros({2, 0}, at::kDouble);
  EXPECT_EQ(error(bad), "q = [2, 0]; expected at least one variable");
  const Tensor rows = at::ones({2, 3}, at::kBool);
  EXPECT_EQ(error(good, {.warm = &rows}), "warm = [2, 3]; expected rows [2, 2]");
}

}  // namespace
}  // namespace deq::testing
