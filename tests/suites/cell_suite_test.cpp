// What every registered cell promises of f: memory, causality, series, gradients, weights.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/layers/condition.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/solvers.h"
#include "deq/solvers/sweep.h"
#include "tests/allocations.h"
#include "tests/suites/cell_cases.h"

namespace deq {
namespace {

using at::Tensor;

class CellSuite : public testing::CellTest {};

TEST_P(CellSuite, ASeriesOfEvaluationsUsesItsMemoryAgain) {
  if (!GetParam().of_kernels()) GTEST_SKIP() << "LibTorch's operators allocate as they like";
  if (!cell->injects()) GTEST_SKIP() << "no equilibrium";
  c10::NoGradGuard no_tape;
  const Map::Series series = cell->bind(x, {}).f.series();
  const Tensor known = cell->bind(x, {})(z);
  std::vector<Tensor> kept(3);  // as a solver keeps its past
  testing::AllocationCount allocations;
  int64_t before = 0;
  for (size_t step = 0; step < 12; ++step) {
    if (step == 6) before = allocations.count();
    kept[step % 3] = series(z, step == 0 ? std::vector<int64_t>{} : std::vector<int64_t>{4, 7});
    EXPECT_TRUE(at::equal(kept[step % 3], known));
  }
  EXPECT_GT(before, 0);
  EXPECT_EQ(allocations.count(), before);
}

TEST_P(CellSuite, ReadsItsWeightsRoundedWhereItSaysSo) {
  const Tensor taped = cell->bind(x, {})(z).detach();
  c10::NoGradGuard no_tape;
  const Tensor exact = cell->bind(x, {})(z);
  if (!cell->read_weights(WeightType::Bfloat16)) {
    EXPECT_FALSE(GetParam().of_kernels() && cell->injects());
    EXPECT_TRUE(cell->read_weights(WeightType::Exact));
    EXPECT_TRUE(at::equal(cell->bind(x, {})(z), exact));
    return;
  }
  const Tensor rounded = cell->bind(x, {})(z);
  const double change = ((rounded - exact).norm() / exact.norm()).item<double>();
  EXPECT_GT(change, 1e-5);
  EXPECT_LT(change, 1e-2);
  {
    at::AutoGradMode tape(true);
    EXPECT_TRUE(at::equal(cell->bind(x, {})(z), taped));
  }
  EXPECT_TRUE(cell->read_weights(WeightType::Exact));
  EXPECT_TRUE(at::equal(cell->bind(x, {})(z), exact));
}

TEST_P(CellSuite, TellsWhetherItIsCausal) {
  const Tensor before = cell->bind(x, {})(z);
  EXPECT_EQ(before.sizes(), z.sizes());
  Tensor other_x = x.clone(), other_z = z.clone();
  other_x.narrow(1, 6, 3).normal_();
  other_z.narrow(1, 6, 3).normal_();
  const Tensor after = cell->bind(other_x, {})(other_z);
  EXPECT_EQ(at::equal(before.narrow(1, 0, 6), after.narrow(1, 0, 6)), cell->causal());
  EXPECT_FALSE(at::equal(before.narrow(1, 6, 3), after.narrow(1, 6, 3)));
}

TEST_P(CellSuite, TellsWhetherItDependsOnItsInput) {
  EXPECT_EQ(!at::equal(cell->bind(x, {})(z), cell->bind(at::randn_like(x), {})(z)),
            cell->injects());
}

TEST_P(CellSuite, ASolveWithoutWhatIsDoneIsTheSameSolve) {
  if (!cell->injects()) GTEST_SKIP() << "no equilibrium";
  at::AutoGradMode no_tape(false);
  const Bound f = cell->bind(x, {});
  const Map whole = [&](const Tensor& z) { return f.f(z); };
  double converged = 0;  // something is left out
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal}) {
    if (scope != Scope::Sample && !cell->causal()) continue;
    const Anderson anderson{.scope = scope};
    const StopRule stop{.max_steps = 60, .rel_tol = 1e-3};
    const Solution ours = solve(f.f, at::zeros_like(z), anderson, stop);
    const Solution plain = solve(whole, at::zeros_like(z), anderson, stop);
    EXPECT_TRUE(at::equal(ours.z, plain.z));
    EXPECT_TRUE(at::equal(ours.report.trace, plain.report.trace));
    converged += ours.report.converged_share();
  }
  if (GetParam().of_kernels()) {  // others leave nothing out
    EXPECT_GT(converged, 0);
  }
}

TEST_P(CellSuite, ASweepFindsAnEquilibrium) {
  if (!cell->causal() || !cell->injects()) GTEST_SKIP() << "no equilibrium by parts";
  const Bound f = cell->bind(x, {});
  const StopRule stop{.max_steps = 300, .rel_tol = 1e-11};
  const Solution swept = solve(f.f, at::zeros_like(z), Sweep{.inner = 2000}, stop);
  if (!swept.report.converged()) GTEST_SKIP() << "plain iteration does not converge here";
  EXPECT_LT((f(swept.z) - swept.z).abs().max().item<double>(), 1e-9);
  EXPECT_LT(swept.report.evaluations, 2000);
}

TEST_P(CellSuite, AnAdjointWithoutWhatIsDoneIsTheSameAdjoint) {
  if (!cell->injects()) GTEST_SKIP() << "no equilibrium";
  const Bound f = cell->bind(x, {});
  const Tensor at = z.detach().requires_grad_(true), g = at::randn_like(z);
  const Map::Linearised own = f.f.linearise(at);
  const Map::Linearised plain = Map([&](const Tensor& s) { return f.f(s); }).linearise(at);
  ASSERT_TRUE(at::equal(own.fz, plain.fz));
  const auto adjoint = [&](const Map::Linearised& how) {
    const Map::Series next = [&](const Tensor& u, const std::vector<int64_t>& done) {
      return 0.5 * how.transposed(u, done) + g;
    };
    return Map([next](const Tensor& u) { return next(u, {}); }, [next] { return next; });
  };
  double converged = 0;  // something is left out
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal}) {
    if (scope != Scope::Sample && !cell->causal()) continue;
    const Anderson anderson{.scope = scope};
    const StopRule stop{.max_steps = 60, .rel_tol = 1e-3};
    const Solution ours = solve(adjoint(own), g, anderson, stop, Order::Backward);
    const Solution theirs = solve(adjoint(plain), g, anderson, stop, Order::Backward);
    EXPECT_TRUE(at::equal(ours.z, theirs.z));
    EXPECT_TRUE(at::equal(ours.report.trace, theirs.report.trace));
    converged += ours.report.converged_share();
  }
  EXPECT_GT(converged, 0);
}

TEST_P(CellSuite, LevelsShareWeightsAndInput) {
  if (!keeps_past()) GTEST_SKIP() << "no past";
  const History one = after(3, 4);
  History other = one;
  for (Tensor* part : {&other.z, &other.k, &other.v}) {
    if (part->defined()) *part = at::randn_like(*part);
  }
  const Tensor rest_x = x.narrow(1, 3, 6), rest_z = z.narrow(1, 3, 6);
  const auto levels = cell->bind_levels(rest_x, {one, other});
  ASSERT_EQ(levels.size(), 2u);
  EXPECT_TRUE(at::equal(levels[0](rest_z), cell->bind(rest_x, one)(rest_z)));
  EXPECT_TRUE(at::equal(levels[1](rest_z), cell->bind(rest_x, other)(rest_z)));
  EXPECT_FALSE(at::equal(levels[0](rest_z), levels[1](rest_z)));
}

TEST_P(CellSuite, GradientsAreThoseOfFiniteDifferences) {
  const Tensor own_x = x.narrow(1, 2, 4).clone().requires_grad_(true);
  const Tensor own_z = z.narrow(1, 2, 4).clone().requires_grad_(true);
  const Tensor probe = at::randn_like(own_z);
  const auto value = [&] { return (cell->bind(own_x, {})(own_z) * probe).sum(); };
  std::vector<Tensor> inputs = cell->parameters();
  inputs.push_back(own_z);
  if (cell->injects()) inputs.push_back(own_x);
  const auto gradients = torch::autograd::grad({value()}, inputs, {}, false, false, false);
  at::AutoGradMode no_tape(false);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor direction = at::randn_like(inputs[i]);
    constexpr double kStep = 1e-5;
    inputs[i].add_(direction, kStep);
    const double up = value().item<double>();
    inputs[i].add_(direction, -2 * kStep);
    const double down = value().item<double>();
    inputs[i].add_(direction, kStep);
    const double expected = (up - down) / (2 * kStep);
    const double found = (gradients[i] * direction).sum().item<double>();
    EXPECT_NEAR(found, expected, 1e-6 * std::max(1.0, std::abs(expected))) << "input " << i;
  }
}

TEST_P(CellSuite, RefusesShapesThatDoNotFit) {
  EXPECT_THROW(cell->bind(at::zeros({B, T, cell->input_width() + 1}, at::kDouble), {}), Error);
  if (!keeps_past()) return;
  History other = after(3, 4);
  for (Tensor* part : {&other.z, &other.k, &other.v}) {
    if (part->defined()) *part = part->narrow(0, 0, 1);
  }
  EXPECT_THROW(cell->bind(x, other), Error);
}

TEST_P(CellSuite, InitialWeightsHaveTheirDeviation) {
  double squares = 0, count = 0;  // many small matrices, one estimate
  for (int draw = 0; draw < 20; ++draw) {
    cell->initialise(0.01);
    for (const auto& item : cell->named_parameters()) {
      const std::string name = item.key().substr(item.key().rfind('.') + 1);
      if (name == "bias" || name == "input_bias" || name == "hidden_bias") {
        EXPECT_EQ(item.value().abs().max().item<double>(), 0) << item.key();
      } else if (name != "g") {
        squares += item.value().square().sum().item<double>();
        count += double(item.value().numel());
      }
    }
  }
  EXPECT_NEAR(std::sqrt(squares / count), 0.01, 0.0005);
}

INSTANTIATE_TEST_SUITE_P(Cells, CellSuite, ::testing::ValuesIn(testing::cell_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Cells, CoverEveryRegisteredCell) {
  std::set<std::string> seen;
  for (const testing::CellCase& c : testing::cell_cases()) seen.insert(c.options.name());
  // Those without an f have tests of their own, tests/layers/condition_test.cpp.
  for (const CellOptions& cell : CellMaker::known())
    EXPECT_NE(seen.count(cell.name()) > 0, has_condition(cell)) << cell.name();
}

}  // namespace
}  // namespace deq
