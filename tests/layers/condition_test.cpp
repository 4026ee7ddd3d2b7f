// Cells that meet a condition of their own, beside the conditions themselves.
#include "deq/layers/condition.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "deq/cells/conditions.h"
#include "deq/gradients/implicit.h"
#include "deq/layers/maxsat_cell.h"
#include "deq/layers/program_cell.h"
#include "tests/base/scratch.h"
#include "tests/layers/enumeration.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

Tensor parameter(const torch::nn::Module& module, const std::string& name) {
  return module.named_parameters()[name];
}

std::shared_ptr<Cell> made(const CellOptions& options, int64_t symbols = 0) {
  at::manual_seed(3);
  auto cell = make_cell(options, {.symbols = symbols});
  cell->initialise(0.02);
  cell->to(at::kDouble);
  return cell;
}

std::unique_ptr<Layer> layer_of(const CellOptions& options, int64_t symbols = 0) {
  at::manual_seed(3);
  auto layer = make_layer(options, {}, symbols);
  layer->cell().initialise(0.02);
  layer->cell().to(at::kDouble);
  return layer;
}

ForwardOptions until(int64_t steps, double rel_tol) {
  ForwardOptions how;
  how.equilibrium.stop = {.max_steps = steps, .rel_tol = rel_tol};
  how.equilibrium.gradient = Implicit{.stop = {.max_steps = 200, .rel_tol = 1e-9}};
  return how;
}

/// Two symbols at each of two by two places; one is given, the second symbol.
Tensor one_given() {
  Tensor x = at::full({1, 2, 2, 2}, -1, at::kDouble);
  x[0][0][1][0] = 0;
  x[0][0][1][1] = 1;
  return x;
}

const LearnedClauses kClauses{.places = 4, .auxiliary = 2, .clauses = 6};

TEST(ConditionLayer, ClausesAreMaxsatsOwn) {
  const auto layer = layer_of(kClauses, 2);
  Tensor S = parameter(layer->cell(), "maxsat.S");
  EXPECT_NEAR(S.std().item<double>(), std::sqrt(0.5 / (1 + 8 + 2 + 6)), 0.03);
  Report adjoint;
  ForwardOptions how = until(2000, 1e-9);
  how.on_adjoint = [&](const Report& heard) { adjoint = heard; };
  const LayerOutput found = layer->forward(one_given(), {}, how);
  ASSERT_EQ(found.z.sizes(), (at::IntArrayRef{1, 2, 2, 2}));
  EXPECT_TRUE(found.histories.empty());

  const Maxsat own(S.detach(), {.variables = 8, .auxiliary = 2});
  const Tensor flat = one_given().view({1, 8});
  const MaxsatSolve same{.stop = {.max_steps = 2000, .rel_tol = 1e-9},
                         .adjoint = {.max_steps = 200, .rel_tol = 1e-9}};
  const Assignment expected = own(flat.clamp_min(0), flat.ge(0), same);
  EXPECT_TRUE(at::equal(found.z.view({1, 8}), expected.z));
  EXPECT_TRUE(at::equal(found.z[0][0][1], one_given()[0][0][1])) << "given ones are copied";
  EXPECT_EQ(found.report.steps.item<int64_t>(), expected.report.steps.item<int64_t>());
  EXPECT_TRUE(found.report.converged());

  const Tensor weight = at::randn({8}, at::kDouble);
  (found.z.view({8}) * weight).sum().backward();
  (expected.z.view({8}) * weight).sum().backward();
  EXPECT_TRUE(at::equal(S.grad(), own.S().grad()));
  EXPECT_GT(S.grad().abs().max().item<double>(), 0);
  EXPECT_GT(adjoint.evaluations, 0);
  EXPECT_EQ(adjoint.residual.item<double>(), expected.adjoint().residual.item<double>());
}

TEST(ConditionLayer, ReportsWhatDidNotConverge) {
  const auto layer = layer_of(kClauses, 2);
  c10::AutoGradMode no_tape(false);
  const LayerOutput found = layer->forward(one_given(), {}, until(1, 1e-9));
  EXPECT_FALSE(found.report.converged());
  EXPECT_EQ(found.report.count(Reason::MaxSteps), 1);
  EXPECT_GT(found.report.worst_residual(), 1e-9);
  EXPECT_TRUE(layer->forward(one_given(), {}, until(2000, 1e-6)).report.converged());
}

TEST(ConditionLayer, StopsTheAdjointWhereItIsTold) {
  const auto layer = layer_of(kClauses, 2);
  Report adjoint;
  ForwardOptions how = until(2000, 1e-9);
  how.equilibrium.gradient = Implicit{.stop = {.max_steps = 1, .rel_tol = 1e-12}};
  how.on_adjoint = [&](const Report& heard) { adjoint = heard; };
  layer->forward(one_given(), {}, how).z.sum().backward();
  EXPECT_EQ(adjoint.max_steps, 1);
  EXPECT_FALSE(adjoint.converged());
}

TEST(ConditionLayer, RefusesWhatItHasNot) {
  const auto layer = layer_of(kClauses, 2);
  const auto says = [&](const ForwardOptions& how) {
    return error_of([&] { layer->forward(one_given(), {}, how); });
  };
  ForwardOptions how = until(9, 0.1);
  how.z0 = one_given();
  EXPECT_SAYS(says(how), "a state to start from");
  how = until(9, 0.1);
  how.noise = 0.1;
  EXPECT_SAYS(says(how), "noise");
  how = until(9, 0.1);
  how.jacobian_loss = true;
  EXPECT_SAYS(says(how), "has no f");
  how = until(9, 0.1);
  how.history = 3;
  EXPECT_SAYS(says(how), "a history");
  EXPECT_SAYS(error_of([&] { layer->bind(one_given(), {}); }),
              "cell = maxsat: it meets a condition of its own, and has no f(z, x)");
  EXPECT_SAYS(error_of([&] {
                layer->forward(at::zeros({1, 3, 2}), {}, until(9, 0.1));
              }),
              "cell = maxsat: a problem of 3 places; expected cell-places = 4");
  EXPECT_SAYS(error_of([&] {
                layer->forward(at::zeros({1, 4, 3}), {}, until(9, 0.1));
              }),
              "cell = maxsat: x of 3 symbols; expected 2");
  EXPECT_SAYS(error_of([] { make_layer(kClauses, {}, 1); }), "among 1 symbols; expected 2");
  EXPECT_SAYS(error_of([] { make_layer(kClauses, {.depth = 2}, 2); }),
              "depth = 2: cell maxsat meets a condition of its own");
  EXPECT_SAYS(error_of([] { make_layer(LearnedProgram{.places = 4, .equalities = 8}, {}, 2); }),
              "cell-equalities = 8 for 8 numbers");
  EXPECT_SAYS(error_of([] {
                layer_of(LearnedProgram{.places = 3, .equalities = 2}, 2)
                    ->forward(one_given(), {}, until(9, 0.1));
              }),
              "cell = optnet: a problem of 4 places; expected cell-places = 3");
  EXPECT_SAYS(error_of([] { layer_of(ChainedClauses{})->forward(one_given(), {}, until(9, 0.1)); }),
              "cell = maxsat-chain: x of shape [1, 2, 2, 2]; expected (batch, positions, 1)");
}

Tensor bits(at::IntArrayRef of) {
  return at::tensor(of, at::kDouble).view({1, int64_t(of.size()), 1});
}

TEST(MaxsatChain, HandsOnWhatIsRounded) {
  const auto layer = layer_of(ChainedClauses{});
  Tensor S = parameter(layer->cell(), "maxsat.S");
  const ForwardOptions how = until(500, 1e-8);
  const LayerOutput found = layer->forward(bits({1, 0, 1, 1}), {}, how);
  ASSERT_EQ(found.z.sizes(), (at::IntArrayRef{1, 4, 1}));
  EXPECT_EQ(found.z[0][0].item<double>(), 1);

  const Maxsat own(S.detach(), {.variables = 3, .auxiliary = 4});
  const MaxsatSolve same{.stop = how.equilibrium.stop,
                         .adjoint = {.max_steps = 200, .rel_tol = 1e-9}};
  const Tensor known = at::tensor({1, 1, 0}, at::kByte), weight = at::tensor({3.0, 5.0, 7.0});
  Tensor last = at::ones({}, at::kDouble), loss;
  double worst = 0;
  int64_t steps = 0;
  for (int64_t t = 1; t < 4; ++t) {
    const double bit = t == 1 ? 0 : 1;
    const Assignment link =
        own(at::tensor({std::round(last.item<double>()), bit, 0.0}, at::kDouble).view({1, 3}),
            known, same);
    last = link.z[0][2];
    EXPECT_EQ(found.z[0][t].item<double>(), last.item<double>()) << t;
    loss = loss.defined() ? loss + weight[t - 1] * last : weight[t - 1] * last;
    worst = std::max(worst, link.report.worst_residual());
    steps += link.report.steps.item<int64_t>();
  }
  EXPECT_EQ(found.report.worst_residual(), worst);
  EXPECT_EQ(found.report.steps.item<int64_t>(), steps);
  EXPECT_TRUE(found.report.converged());
  (found.z.flatten().narrow(0, 1, 3) * weight).sum().backward();
  loss.backward();
  EXPECT_TRUE(at::allclose(S.grad(), own.S().grad(), 1e-12, 1e-14)) << "of every link";
}

TEST(MaxsatChain, SaysWhichSamplesDidNotConverge) {
  const auto layer = layer_of(ChainedClauses{});
  c10::AutoGradMode no_tape(false);
  EXPECT_TRUE(layer->forward(bits({1}), {}, until(1, 1e-9)).report.converged()) << "of no link";
  std::vector<Tensor> all;
  for (int64_t number = 0; number < 32; ++number)
    all.push_back(
        bits({number & 1, number >> 1 & 1, number >> 2 & 1, number >> 3 & 1, number >> 4}));
  const Tensor x = at::cat(all);
  const auto limit = [&](int64_t steps, int64_t links) {
    return layer->forward(x.narrow(1, 0, links + 1), {}, until(steps, 1e-9)).report;
  };
  // Sweeps of the first link tell those that take more than half.
  const Tensor steps = limit(5000, 1).steps;
  const int64_t few = (steps.min().item<int64_t>() + steps.max().item<int64_t>()) / 2;
  Tensor ended = at::zeros({32}, at::kBool), before = at::zeros({32}, at::kLong);
  int64_t only_before = 0;
  for (int64_t links = 1; links <= 4; ++links) {
    const Report report = limit(few, links);
    const Tensor last = report.steps - before, now = report.reason.eq(int64_t(Reason::MaxSteps));
    EXPECT_TRUE(at::equal(now, ended.logical_or(last.ge(few)))) << links;
    only_before += ended.logical_and(last.lt(few)).sum().item<int64_t>();
    ended = now;
    before = report.steps;
  }
  EXPECT_GT(only_before, 0) << "links that converge behind one that did not";
}

TEST(MaxsatChain, DrawsClausesAnewThatAreNoBetterThanGuessing) {
  const auto cell = made(ChainedClauses{.trial = 9});
  auto& chain = dynamic_cast<MaxsatChain&>(*cell);
  const Tensor S = parameter(*cell, "maxsat.S"), first = S.detach().clone();
  const double guessing = std::log(2.0);
  const auto hear = [&](double early, double late) {
    for (int step = 0; step < 9; ++step) chain.hear(step < 6 ? early : late);
  };
  hear(guessing, 0.97 * guessing);
  EXPECT_EQ(chain.drawn(), 1);
  EXPECT_TRUE(at::equal(S, first)) << "the last third is better";
  for (int step = 0; step < 8; ++step) chain.hear(0.99 * guessing);
  EXPECT_TRUE(at::equal(S, first)) << "not yet";
  chain.hear(0.99 * guessing);
  EXPECT_EQ(chain.drawn(), 2);
  const Tensor second = S.detach().clone();
  EXPECT_GT((second - first).abs().min().item<double>(), 0);
  EXPECT_NEAR(second.std().item<double>(), std::sqrt(0.5 / (1 + 3 + 4 + 4)), 0.06);
  hear(0.1, std::nan(""));
  EXPECT_EQ(chain.drawn(), 3);
  hear(0.1, -std::numeric_limits<double>::infinity());
  EXPECT_EQ(chain.drawn(), 4) << "no better than guessing";
  // The draws are the cell's own: of its seed and their number.
  const auto other = made(ChainedClauses{.trial = 9});
  at::rand({5});
  for (int step = 0; step < 9; ++step) dynamic_cast<MaxsatChain&>(*other).hear(1);
  EXPECT_TRUE(at::equal(parameter(*other, "maxsat.S"), second));

  const auto never = made(ChainedClauses{.trial = 0});
  for (int step = 0; step < 100; ++step) dynamic_cast<MaxsatChain&>(*never).hear(1);
  EXPECT_EQ(dynamic_cast<MaxsatChain&>(*never).drawn(), 1);
}

TEST(ProgramCell, IsTheProgramThatItSays) {
  const LearnedProgram options{.places = 4, .equalities = 3, .penalty = 0.3};
  const auto layer = layer_of(options, 2);
  auto& cell = dynamic_cast<ProgramCell&>(layer->cell());
  const Tensor A = cell.equalities(), r = cell.start();
  EXPECT_GE(A.min().item<double>(), 0);
  EXPECT_NEAR(A.mean().item<double>(), 0.5, 0.2);
  {
    c10::AutoGradMode no_tape(false);
    Tensor(r).normal_();
  }
  const LayerOutput found = layer->forward(one_given(), {}, until(60, 1e-10));
  EXPECT_TRUE(found.report.converged());

  testing::SmallProgram small{.n = 8, .p = 3, .m = 8};
  const auto numbers = [](const Tensor& t) {
    const Tensor held = t.detach().contiguous();
    return std::vector<double>(held.data_ptr<double>(), held.data_ptr<double>() + held.numel());
  };
  const Tensor eye = at::eye(8, at::kDouble);
  small.Q = numbers(0.3 * eye);
  small.q = {0, 0, 0, -1, 0, 0, 0, 0};  // the second symbol at the second place
  small.A = numbers(A);
  small.b = numbers(at::mv(A, r.exp()));
  small.G = numbers(-eye);
  small.h = std::vector<double>(8, 0.0);
  const testing::Enumerated all = testing::enumerate(small);
  ASSERT_FALSE(all.z.empty());
  EXPECT_TRUE(at::allclose(found.z.view({8}), at::tensor(all.z.front(), at::kDouble), 0, 1e-8));
}

TEST(ProgramCell, HasTheGradientOfDifferences) {
  const auto layer = layer_of(LearnedProgram{.places = 4, .equalities = 3}, 2);
  auto& cell = dynamic_cast<ProgramCell&>(layer->cell());
  const Tensor weight = at::randn({8}, at::kDouble);
  const auto loss = [&] {
    return (layer->forward(one_given(), {}, until(60, 1e-12)).z.view({8}) * weight).sum();
  };
  Report adjoint;
  ForwardOptions how = until(60, 1e-12);
  how.on_adjoint = [&](const Report& heard) { adjoint = heard; };
  (layer->forward(one_given(), {}, how).z.view({8}) * weight).sum().backward();
  EXPECT_TRUE(adjoint.reason.defined());
  c10::AutoGradMode no_tape(false);
  for (Tensor parameter : {cell.equalities(), cell.start()}) {
    for (const int64_t i : {0, 3, 7}) {
      const Tensor number = parameter.flatten()[i];
      const double held = number.item<double>(), step = 1e-6;
      number.fill_(held + step);
      const double above = loss().item<double>();
      number.fill_(held - step);
      const double below = loss().item<double>();
      number.fill_(held);
      EXPECT_NEAR(parameter.grad().flatten()[i].item<double>(), (above - below) / (2 * step), 1e-6);
    }
  }
}

}  // namespace
}  // namespace deq
