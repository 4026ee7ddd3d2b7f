// The recurrence as an equilibrium: every way to its states and gradients gives the same.
#include "deq/cells/shift.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/gradients/gradients.h"
#include "deq/gradients/implicit.h"
#include "deq/gradients/unrolled.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/picard.h"
#include "deq/solvers/sweep.h"

namespace deq {
namespace {

using at::Tensor;

class ShiftTest : public ::testing::TestWithParam<Meeting> {
 protected:
  static constexpr int64_t B = 3, T = 7, D = 6;

  void SetUp() override {
    at::manual_seed(3);
    cell = std::make_shared<ShiftCell>(Shift{.width = D, .inner = 9, .meeting = GetParam()});
    cell->initialise(0.5);
    cell->to(at::kDouble);
    x = at::randn({B, T, D}, at::kDouble).requires_grad_(true);
    probe = at::randn({B, T, D}, at::kDouble);
  }

  struct Found {
    Tensor z;
    std::vector<Tensor> gradients;
    Report report, adjoint;
  };
  Found find(const EquilibriumOptions& how) {
    const Bound f = cell->bind(x, {});
    const Equilibrated found = equilibrium(f.f, at::zeros({B, T, D}, at::kDouble), how);
    std::vector<Tensor> inputs = cell->parameters();
    inputs.push_back(x);
    const auto gradients = torch::autograd::grad({(found.z * probe).sum()}, inputs);
    return {found.z.detach(), gradients, found.report, found.adjoint()};
  }
  static void expect_same(const Found& a, const Found& b) {
    EXPECT_LT((a.z - b.z).abs().max().item<double>(), 1e-12);
    for (size_t i = 0; i < a.gradients.size(); ++i)
      EXPECT_LT((a.gradients[i] - b.gradients[i]).abs().max().item<double>(), 1e-12)
          << "input " << i;
  }

  std::shared_ptr<ShiftCell> cell;
  Tensor x, probe;
};

TEST_P(ShiftTest, SweepPicardAndUnrolledGiveTheSame) {
  const StopRule exact{.max_steps = 100, .rel_tol = 1e-14};
  // As many levels as positions are back-propagation through time.
  const Found unrolled = find({.stop = exact, .gradient = Unrolled{.steps = T}});
  const Gradient implicit = Implicit{.solver = Picard{}, .stop = exact};
  const Found swept = find({.solver = Sweep{}, .stop = exact, .gradient = implicit});
  expect_same(swept, unrolled);
  expect_same(find({.solver = Picard{}, .stop = exact, .gradient = implicit}), unrolled);
  expect_same(
      find({.solver = Picard{.scope = Scope::Position}, .stop = exact, .gradient = implicit}),
      unrolled);
  EXPECT_TRUE(swept.report.converged());
  EXPECT_TRUE(swept.adjoint.converged());
}

TEST_P(ShiftTest, ASweepIsOneEvaluationAndItsAdjointOneProduct) {
  const StopRule exact{.max_steps = 100, .rel_tol = 1e-13};
  const Found swept = find(
      {.solver = Sweep{}, .stop = exact, .gradient = Implicit{.solver = Picard{}, .stop = exact}});
  // The sweep; f as a whole, which judges it; and f with its tape.
  EXPECT_EQ(swept.report.evaluations, 3);
  EXPECT_EQ(swept.adjoint.evaluations, 1);
}

TEST_P(ShiftTest, PlainIterationIsExactAfterAsManyStepsAsPositions) {
  const Found found = find({.solver = Picard{},
                            .stop = {.max_steps = 100, .rel_tol = 1e-14},
                            .gradient = Implicit{.solver = Picard{}, .stop = {.max_steps = 100}}});
  EXPECT_LE(found.report.evaluations, T + 2);
}

TEST_P(ShiftTest, HasTheFormulaOfItsDocumentation) {
  std::map<std::string, Tensor> p;
  for (const auto& item : cell->named_parameters()) p[item.key()] = item.value();
  const Tensor z = at::randn({B, T, D}, at::kDouble), fz = cell->bind(x, {})(z);
  for (int64_t t = 0; t < T; ++t) {
    const Tensor before = t == 0 ? p["initial"].unsqueeze(0).expand({B, D}) : z.select(1, t - 1);
    const Tensor u = at::matmul(x.select(1, t), p["inject.weight"].t()) + p["inject.bias"];
    const Tensor read = at::matmul(before, p["state.weight"].t());
    const Tensor g = GetParam() == Meeting::Additive ? (read + u).relu() : read * u;
    const Tensor y = at::matmul(g, p["output.weight"].t()) + p["output.bias"];
    const Tensor expected = y / (y.square().mean(1, true) + 1e-6).sqrt();
    EXPECT_LT((fz.select(1, t) - expected).abs().max().item<double>(), 1e-12);
  }
}

TEST_P(ShiftTest, AStateCarriesThePast) {
  const EquilibriumOptions how{.solver = Sweep{}, .stop = {.rel_tol = 1e-13}};
  c10::NoGradGuard no_tape;
  const Tensor zeros = at::zeros({B, T, D}, at::kDouble);
  const Tensor whole = equilibrium(cell->bind(x, {}).f, zeros, how);
  const Bound first = cell->bind(x.narrow(1, 0, 4), {});
  const Tensor z = equilibrium(first.f, zeros.narrow(1, 0, 4), how);
  const Bound rest = cell->bind(x.narrow(1, 4, 3), first.extend(z, 5));
  const Tensor found = equilibrium(rest.f, zeros.narrow(1, 4, 3), how);
  EXPECT_LT((found - whole.narrow(1, 4, 3)).abs().max().item<double>(), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Cells, ShiftTest, ::testing::Values(Meeting::Additive, Meeting::Bilinear),
                         [](const auto& info) {
                           return std::string(Names<Meeting>::values[size_t(info.param)]);
                         });

}  // namespace
}  // namespace deq
