// What a sweep counts, on numbers that can be counted by hand.
#include "deq/measure/trials.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "deq/cells/convolution.h"
#include "deq/cells/transformer.h"
#include "deq/measure/starts.h"
#include "deq/measure/verdict.h"
#include "deq/models/leaving.h"
#include "deq/report/problem_picture.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/picard.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;

TEST(RocArea, IsTheShareOfPairsInTheRightOrder) {
  EXPECT_EQ(roc_area({1e-3, 1e-4, 0.1, 0.2}, {1, 1, 0, 0}), 1);
  EXPECT_EQ(roc_area({1e-3, 1e-4, 0.1, 0.2}, {0, 0, 1, 1}), 0);
  EXPECT_EQ(roc_area({0.1, 0.2, 0.3}, {1, 0, 1}), 0.5);
  EXPECT_EQ(roc_area({0.1, 0.1, 0.1}, {1, 0, 1}), 0.5) << "ties count half";
  EXPECT_EQ(roc_area({NAN, 0.1, INFINITY}, {0, 1, 0}), 1) << "not finite is the largest";
  EXPECT_TRUE(std::isnan(roc_area({0.1, 0.2}, {1, 1})));
  EXPECT_TRUE(std::isnan(roc_area({}, {})));
}

TEST(Median, IsTheMiddle) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_TRUE(std::isnan(median({})));
}

TEST(StateResiduals, AWrongSquareIsNotDiluted) {
  Tensor fz = at::ones({2, 60, 60, 1}), z = fz.clone();
  z[1][7][9][0] = 0;  // one of 3600
  const StateResiduals found = residuals_of(z, fz);
  EXPECT_EQ(found.samples[0].item<double>(), 0);
  EXPECT_NEAR(found.samples[1].item<double>(), 1.0 / 60, 1e-12);
  EXPECT_EQ(found.worst[1].item<double>(), 1);
  EXPECT_EQ(found.positions[1][7][9].item<double>(), 1);
  fz[0][0][0][0] = NAN;
  EXPECT_TRUE(std::isinf(residuals_of(z, fz).samples[0].item<double>()));
}

Trials one_start(std::vector<Trial> problems) {
  return {.limits = {8}, .at = {std::move(problems)}, .seconds = {0}};
}

TEST(Starts, TheSmallestResidualAnswersTheMajorityAndAny) {
  const Trial right{.right = true, .residual = 0.1, .evaluations = 8, .answer = 1};
  const Trial wrong{.right = false, .residual = 0.2, .evaluations = 4, .answer = 2};
  Trial sure = wrong;
  sure.residual = 1e-6;
  const std::vector<Breadth> found = count_starts(
      {one_start({wrong, wrong}), one_start({right, wrong}), one_start({sure, wrong})});
  ASSERT_EQ(found.size(), 3u) << "1, 2 and all 3";
  EXPECT_EQ(found[0].by_residual, 0);
  EXPECT_EQ(found[1].by_residual, 0.5) << "the right one of the first problem";
  EXPECT_EQ(found[1].majority, 0.5) << "one each: the smaller residual";
  EXPECT_EQ(found[2].by_residual, 0) << "misled";
  EXPECT_EQ(found[2].majority, 0) << "two to one";
  EXPECT_EQ(found[2].any, 0.5);
  EXPECT_EQ(found[2].evaluations, (4 + 8 + 4 + 3 * 4) / 2.0);
}

TEST(Starts, TheLowestEnergyIsAnotherJudge) {
  const Trial right{.right = true, .residual = 0.1, .energy = -3},
      wrong{.right = false, .residual = 0.01, .energy = -2};
  const auto found = count_starts({one_start({wrong, right}), one_start({right, wrong})});
  EXPECT_EQ(found[1].by_residual, 0);
  EXPECT_EQ(found[1].by_energy, 1);
  EXPECT_EQ(found[0].by_energy, 0.5);
  EXPECT_TRUE(std::isnan(count_starts({one_start({Trial{}})})[0].by_energy)) << "none";
}

TEST(Starts, AProblemsStartIsItsOwnWhereverItStands) {
  const StartOf start = random_start(1, 2.0, 3);
  const Tensor all = start(at::zeros({5, 7, 2}), 10), part = start(at::zeros({2, 7, 2}), 12);
  EXPECT_TRUE(part.equal(all.narrow(0, 2, 2)));
  EXPECT_FALSE(all[0].equal(all[1]));
  EXPECT_FALSE(random_start(1, 2.0, 4)(at::zeros({5, 7, 2}), 10).equal(all));
}

TEST(ProblemPicture, NoSymbolEndsItsScript) {
  const ProblemPicture picture{.title = "<i>",
                               .columns = 2,
                               .symbols = {"</script><b>", "\xff\n"},
                               .problem = {0, 1},
                               .wanted = {1, -1},
                               .frames = {{3, 0.5, {1, -1}, {1e-3, NAN}}}};
  const std::string page = draw_problem(picture);
  EXPECT_EQ(page.find("<b>"), std::string::npos);
  EXPECT_EQ(page.find("<i>"), std::string::npos);
  EXPECT_EQ(page.find("</script>"), page.rfind("</script>"));
  EXPECT_NE(page.find("\"levels\":\"6-\""), std::string::npos) << "1e-3 is six half decades";
  EXPECT_EQ(draw_problem({}), "") << "nothing to see";
}

/// Problems that converge one after the other; a solve of all of them, and one that they leave.
void expect_leaving(const CellOptions& cell, const Solver& solver, double init_std) {
  at::manual_seed(2);
  c10::NoGradGuard no_tape;
  ModelOptions options;
  options.cell = cell;
  options.initial.init_std = init_std;
  options.initial.embedding_init_std = 1;
  Model model(options, {3, 3});
  model.eval();
  const Tensor tokens = at::randint(3, {9, 8}, at::kLong);
  const Tensor zeros = zero_state(model, tokens);
  const Map all = model.bind(tokens, {}).front().f, part = leaving(model, tokens);
  const auto compare = [&](const StopRule& stop) {
    const Solution wanted = solve(all, zeros, solver, stop),
                   found = solve(part, zeros, solver, stop);
    EXPECT_TRUE(found.z.equal(wanted.z));
    EXPECT_TRUE(found.report.residual.equal(wanted.report.residual));
    EXPECT_TRUE(found.report.reason.equal(wanted.report.reason));
    EXPECT_EQ(found.report.evaluations, wanted.report.evaluations);
    const Tensor last = std::get<0>(wanted.report.steps.view({9, -1}).max(1));
    return last.max().item<int64_t>() - last.min().item<int64_t>();
  };
  EXPECT_GE(compare({.max_steps = 200, .rel_tol = 1e-3}), 2) << "they leave at different times";
  compare({.max_steps = 7, .rel_tol = 1e-2});
}

TEST(Leaving, GivesTheBitsOfAllTogether) {
  expect_leaving(Convolution{.width = 6, .convolutions = 1}, Picard{.scope = Scope::Sample}, 0.25);
}

/// Whose evaluations leave out the first positions that are done besides.
TEST(Leaving, OfACellWithASeriesToo) {
  const Transformer cell{.width = 8, .heads = 2, .inner = 12};
  expect_leaving(cell, Anderson{.scope = Scope::Causal}, 0.4);
  expect_leaving(cell, Anderson{.scope = Scope::Sample}, 0.4);
}

}  // namespace
}  // namespace deq
