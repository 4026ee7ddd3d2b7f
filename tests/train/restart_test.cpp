// Lanes that begin anew in training: what a step then learns from, and going on from its state.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "deq/cells/ntm.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/stack_rnn.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using at::Tensor;

Corpus small_corpus() {
  static const testing::Scratch scratch;
  testing::spill(scratch / "text.txt", testing::small_text());
  return Bytes{}.load(scratch / "text.txt");
}

TrainOptions restarting(const CellOptions& cell, const DepthOptions& depth) {
  TrainOptions options = testing::small_options();
  options.model.cell = cell;
  options.model.depth = depth;
  options.loop.batch.history = 20;  // some positions stay hidden for more than one segment
  options.loop.batch.restart = 0.4;
  return options;
}

std::vector<TrainOptions> networks() {
  TrainOptions parts = restarting(Transformer{.width = 16, .heads = 2, .inner = 24}, {});
  parts.loop.batch.subsequence = 5;
  return {restarting(Transformer{.width = 16, .heads = 2, .inner = 24}, {}),
          parts,
          restarting(Transformer{.width = 16, .heads = 2, .inner = 24}, {.depth = 3}),
          restarting(TrellisNet{.hidden = 7, .output = 5, .kernel = 3}, {}),
          restarting(Lstm{{.width = 12}}, {.depth = 2, .tied = false}),
          restarting(Gru{{.width = 12}}, {.depth = 2, .tied = false}),
          restarting(StackRnn{.width = 12, .stack_depth = 9}, {.depth = 1}),
          restarting(Ntm{.width = 12, .slots = 9}, {.depth = 2, .tied = false}),
          restarting(Tcn{.width = 12, .kernel = 5}, {.depth = 2, .tied = false})};
}

/// One segment a step, nothing random, and weights that hardly move.
void make_steps_alike(TrainOptions& options) {
  options.model.input_dropout = options.model.output_dropout = 0;
  options.model.initial = {.init_std = 0.3, .embedding_init_std = 0.5};
  options.loop.batch.accumulate = 1;
  options.loop.stability = {};
  options.loop.optimization.schedule.rate = 1e-9;
}

// Every lane by itself, its history dropped where it begins anew.
TEST(Restart, AStepLearnsFromBeginnings) {
  for (TrainOptions options : networks()) {
    SCOPED_TRACE(options.model.cell.name());
    make_steps_alike(options);
    options.equilibrium.stop = {.max_steps = 200, .rel_tol = 1e-5};
    const Corpus corpus = small_corpus();
    Trainer trainer(options, corpus);
    const BatchOptions& cut = options.loop.batch;
    SegmentStream stream(corpus.train.tokens, cut.batch, cut.length,
                         {cut.restart, options.loop.run.seed});
    std::vector<Histories> lanes(size_t(cut.batch));
    const ForwardOptions how{
        .equilibrium = options.equilibrium, .history = cut.history, .subsequence = cut.subsequence};
    int compared = 0;
    for (int step = 0; step < 6; ++step) {
      const Batch segment = stream.next();
      double expected = 0, remembered = 0;
      for (int64_t b = 0; b < cut.batch; ++b) {
        const bool anew = std::count(segment.anew.begin(), segment.anew.end(), b) > 0;
        const auto loss_behind = [&](Histories& history) {
          LayerOutput output =
              trainer.model().forward(segment.tokens.narrow(0, b, 1), history, how);
          history = std::move(output.histories);
          return trainer.model().loss(output.z, segment.targets.narrow(0, b, 1)).mean();
        };
        Histories kept = lanes[size_t(b)];
        remembered += loss_behind(kept).item<double>() / double(cut.batch);
        if (anew) lanes[size_t(b)].clear();
        expected += loss_behind(lanes[size_t(b)]).item<double>() / double(cut.batch);
      }
      const StepReport report = trainer.step();
      // What did not converge depends on rounding.
      if (report.depth == 0 && report.converged_share < 1) break;
      ++compared;
      EXPECT_NEAR(report.loss, expected, 5e-5) << "step " << step;
      if (!segment.anew.empty()) {
        EXPECT_GT(std::abs(remembered - expected), 2e-4) << step;
      }
    }
    EXPECT_GE(compared, 2);
  }
}

TEST(Restart, AnEpochBeginsWithoutHistory) {
  TrainOptions options = restarting(Lstm{{.width = 12}}, {.depth = 2, .tied = false});
  make_steps_alike(options);
  options.loop.batch.restart = 0;
  const Corpus corpus = small_corpus();
  Trainer trainer(options, corpus);
  const BatchOptions& cut = options.loop.batch;
  SegmentStream stream(corpus.train.tokens, cut.batch, cut.length);
  ASSERT_TRUE(stream.next().reset);
  const double first = trainer.step().loss;
  while (!stream.next().reset) trainer.step();
  EXPECT_NEAR(trainer.step().loss, first, 1e-6);
}

TEST(Restart, GoesOnFromItsStateToTheSameBits) {
  for (const TrainOptions& options : networks()) {
    SCOPED_TRACE(options.model.cell.name());
    Trainer whole(options, small_corpus()), resumed(options, small_corpus());
    bool some_hidden = false;
    for (int step = 0; step < 12; ++step) {
      NamedTensors state;
      for (const auto& [name, tensor] : whole.state()) state[name] = tensor.clone();
      for (const auto& item : state) some_hidden = some_hidden || item.first.ends_with(".hidden");
      const double loss = whole.step().loss;
      resumed.restore(state);
      EXPECT_EQ(resumed.step().loss, loss) << step;
    }
    const bool hides = options.model.cell.is<Transformer>() || options.model.cell.is<Tcn>();
    EXPECT_EQ(some_hidden, hides);
    for (const auto& [name, tensor] : named_tensors(whole.model()))
      EXPECT_TRUE(at::equal(tensor, named_tensors(resumed.model()).at(name))) << name;
  }
}

TEST(Restart, AStateThatHidesWhatIsNotThereIsAnError) {
  Trainer trainer(networks().front(), small_corpus());
  for (int step = 0; step < 3; ++step) trainer.step();
  const auto refusal = [&](const Tensor& hidden) {
    NamedTensors state = trainer.state();
    state["history.0.hidden"] = hidden;
    return testing::error_of([&] { trainer.restore(state); });
  };
  EXPECT_SAYS(refusal(at::zeros({3}, at::kLong)),
              "hidden positions are Long [3]; expected Long [4]");
  EXPECT_SAYS(refusal(at::full({4}, 21, at::kLong)), "21 hidden positions; expected 0 to 20");
  EXPECT_SAYS(refusal(at::full({4}, -1, at::kLong)), "-1 hidden positions; expected 0 to 20");
  EXPECT_SAYS(refusal(at::zeros({4})), "hidden positions are Float [4]");
}

TEST(Restart, WhereItChangesNothingIsAnError) {
  TrainOptions options = testing::small_options();
  options.loop.batch.restart = 0.1;
  options.loop.batch.history = 0;
  EXPECT_SAYS(testing::error_of([&] { Trainer(options, small_corpus()); }),
              "restart = 0.1 with history = 0: every segment begins anew; expected 0");
  TrainOptions copying = testing::small_copy_options();
  copying.loop.batch.restart = 0.1;
  EXPECT_SAYS(testing::error_of([&] { Trainer(copying, load(copying.task, "")); }),
              "restart = 0.1: every sequence begins anew; expected 0");
}

}  // namespace
}  // namespace deq
