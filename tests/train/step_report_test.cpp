// What a step reports is counted again; a step that is not finite is not taken.
#include <gtest/gtest.h>

#include <set>

#include "deq/gradients/implicit.h"
#include "deq/solvers/anderson.h"
#include "tests/train/plain_step.h"

namespace deq {
namespace {

using at::Tensor;
using testing::distance;
using testing::expect_same_step;
using testing::kLevels;
using testing::plain_nats;
using testing::plain_options;
using testing::PlainStep;
using testing::small_corpus;

// Of segments that have an estimate of the Jacobian and segments that do not, the report is the
// mean of those that do: the same numbers are drawn one segment at a time.
TEST(Step, ReportsTheMeanJacobianOfTheSegmentsThatHaveOne) {
  TrainOptions options = plain_options();
  options.loop.stability.jacobian_weight = 1e-4;
  options.loop.stability.jacobian_frequency = 0.3;
  options.loop.optimization.schedule.rate = 1e-12;  // the weights stay
  Trainer single(options, small_corpus());
  options.loop.batch.accumulate = 4;
  Trainer several(options, small_corpus());
  at::Generator random = at::globalContext().defaultGenerator(at::kCPU);
  const Tensor state = random.get_state();
  std::vector<double> sums;
  std::vector<int64_t> counts;
  for (int step = 0; step < 50; ++step) {
    double sum = 0;
    int64_t count = 0;
    for (int k = 0; k < 4; ++k) {
      const StepReport r = single.step();
      sum += r.jacobian;
      count += r.jacobian_estimates;
      EXPECT_EQ(r.jacobian > 0, r.jacobian_estimates == 1);
    }
    sums.push_back(sum);
    counts.push_back(count);
  }
  random.set_state(state);
  int64_t estimated = 0;
  for (size_t step = 0; step < 50; ++step) {
    const StepReport r = several.step();
    estimated += r.jacobian_estimates;
    EXPECT_EQ(r.jacobian_estimates, counts[step]);
    const double mean = counts[step] > 0 ? sums[step] / double(counts[step]) : 0;
    EXPECT_NEAR(r.jacobian, mean, 1e-5 * mean);
  }
  EXPECT_GE(*std::max_element(counts.begin(), counts.end()), 3);
  EXPECT_NEAR(double(estimated) / 200, 0.3, 0.11);  // 3.4 standard deviations
}

/// A solve of the trainer's model, a step's numbers found segment by segment.
TEST(Step, ReportsTheMeansOfItsSolves) {
  TrainOptions options = plain_options();
  options.equilibrium.gradient =
      Implicit{.solver = Anderson{.memory = 5}, .stop = {.max_steps = 5, .rel_tol = 1e-2}};
  options.equilibrium.stop = {.max_steps = 6, .rel_tol = 2e-3};
  options.loop.batch.accumulate = 3;
  options.model.initial.init_std = 0.6;
  Trainer trainer(options, small_corpus());
  const auto model = trainer.model().clone();
  TrainingReader reader(trainer.corpus().train, {.batch = 3, .length = 7});
  Histories histories;
  ForwardOptions how;
  how.equilibrium = options.equilibrium;
  how.history = 7;
  double loss = 0, residual = 0, converged = 0, evaluations = 0;
  double adjoint_residual = 0, adjoint_converged = 0, adjoint_evaluations = 0;
  int64_t adjoints = 0;
  how.on_adjoint = [&](const Report& report) {
    ++adjoints;
    adjoint_residual += report.residual.mean().item<double>();
    adjoint_converged += double(report.count(Reason::Converged)) / double(report.reason.numel());
    adjoint_evaluations += double(report.evaluations);
  };
  std::set<double> residuals;
  for (int k = 0; k < 3; ++k) {
    const Batch segment = reader.next();
    const LayerOutput output = model->forward(segment.tokens, histories, how);
    histories = output.histories;
    const Tensor mean = plain_nats(*model, output.z, segment.targets).mean();
    mean.backward();
    loss += mean.item<double>();
    residual += output.report.residual.mean().item<double>();
    residuals.insert(output.report.residual.mean().item<double>());
    converged += double(output.report.count(Reason::Converged)) / 21;
    evaluations += double(output.report.evaluations);
  }
  const StepReport r = trainer.step();
  ASSERT_EQ(adjoints, 3);
  ASSERT_EQ(residuals.size(), 3u) << "the last segment's would pass for the mean";
  ASSERT_GT(converged, 0);
  ASSERT_LT(converged, 3);
  EXPECT_EQ(r.adjoint_solves, 3);
  EXPECT_NEAR(r.loss, loss / 3, 1e-5);
  EXPECT_NEAR(r.residual, residual / 3, 1e-5 * residual);
  EXPECT_NEAR(r.converged_share, converged / 3, 1e-12);
  EXPECT_NEAR(r.evaluations, evaluations / 3, 1e-12);
  EXPECT_NEAR(r.adjoint_residual, adjoint_residual / 3, 1e-3 * adjoint_residual);
  EXPECT_NEAR(r.adjoint_converged_share, adjoint_converged / 3, 1e-12);
  EXPECT_NEAR(r.adjoint_evaluations, adjoint_evaluations / 3, 1e-12);
}

TEST(Step, OfAnExplicitNetworkReportsItsDepth) {
  TrainOptions options = plain_options();
  options.model.depth.depth = 3;
  options.equilibrium = {};
  Trainer trainer(options, small_corpus());
  PlainStep written(trainer, plain_options());
  const StepReport r = trainer.step();
  written.take(3, 0.5);
  EXPECT_LT(distance(trainer.model(), written.model()), 1e-5);
  EXPECT_EQ(r.depth, 3);
  EXPECT_EQ(r.evaluations, 3);
  EXPECT_EQ(r.adjoint_solves, 0);
}

/// A weight that is not finite, in place of one of the embedding's for a token that is there.
void spoil(Model& model, double value) {
  at::NoGradGuard no_tape;
  Tensor(model.named_parameters()["embedding.table0"]).select(0, 't').fill_(value);
}

TEST(Step, ThatIsNotFiniteIsNotTakenAndForgetsItsHistory) {
  TrainOptions options = plain_options();
  Trainer trainer(options, small_corpus());
  PlainStep written(trainer, options);
  trainer.step();
  written.take(kLevels, 0.5);
  const Tensor row = trainer.model().named_parameters()["embedding.table0"].detach().clone();
  spoil(trainer.model(), NAN);
  const auto before = trainer.model().clone();
  const StepReport bad = trainer.step();
  EXPECT_FALSE(bad.finite);
  for (const auto& item : trainer.model().named_parameters()) {
    EXPECT_TRUE(at::allclose(item.value(), before->named_parameters()[item.key()], 0, 0,
                             /*equal_nan=*/true))
        << item.key();
  }
  for (const auto& [name, tensor] : trainer.state()) {
    if (name.rfind("optimizer.mean.", 0) == 0) {
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
    }
  }
  {
    at::NoGradGuard no_tape;
    Tensor(trainer.model().named_parameters()["embedding.table0"]).copy_(row);
  }
  // The step behind it sees no history.
  written.skip();
  const StepReport good =
      expect_same_step(trainer, written, [](PlainStep& plain) { plain.take(kLevels, 0.5); });
  EXPECT_TRUE(good.finite);
  EXPECT_EQ(good.step, 3);
}

// f's derivative is NaN where its value is not: the loss is finite, the gradient is not.
TEST(Step, WithOneGradientThatIsNotFiniteIsNotTaken) {
  for (const double value : {double(NAN), double(INFINITY)}) {
    Trainer trainer(plain_options(), small_corpus());
    auto parameters = trainer.model().named_parameters();
    parameters["softmax.bias0"].register_hook([value](const Tensor& g) {
      Tensor spoilt = g.clone();
      spoilt[7].fill_(value);
      return spoilt;
    });
    const auto before = trainer.model().clone();
    const StepReport r = trainer.step();
    EXPECT_TRUE(std::isfinite(r.loss));
    EXPECT_FALSE(r.finite);
    EXPECT_EQ(distance(trainer.model(), *before), 0);
  }
}

/// f(z, x) = z / 2 + x + sqrt(0 z): its value is finite, its derivative by z is not.
struct BrokenCell : Cell {
  std::vector<Bound> bind_levels(const Tensor& x, const std::vector<History>& levels) override {
    Bound bound;
    bound.f = [x](const Tensor& z) { return 0.5 * z + x + (0 * z).sqrt(); };
    bound.extend = [](const Tensor&, int64_t) { return History{}; };
    return std::vector<Bound>(levels.size(), bound);
  }
  bool causal() const override { return true; }
  bool injects() const override { return true; }
  void initialise(double) override {}
  int64_t input_width() const override { return 4; }
  int64_t state_width() const override { return 4; }
};
struct Broken {
  static constexpr const char* name = "broken";
  static void fields(auto&, auto&&) {}
  std::shared_ptr<Cell> make(const CellPlace&) const { return std::make_shared<BrokenCell>(); }
  bool is_causal() const { return true; }
};

TEST(Step, WhoseAdjointIsNotFiniteIsNotTaken) {
  TrainOptions options = plain_options();
  options.model.cell = Broken{};
  options.equilibrium.gradient = Implicit{};
  Trainer trainer(options, small_corpus());
  const auto before = trainer.model().clone();
  const StepReport r = trainer.step();
  EXPECT_TRUE(std::isfinite(r.loss));
  EXPECT_EQ(r.adjoint_solves, 1);
  EXPECT_EQ(r.adjoint_converged_share, 0);
  EXPECT_FALSE(r.finite);
  EXPECT_EQ(distance(trainer.model(), *before), 0);
}

}  // namespace
}  // namespace deq
