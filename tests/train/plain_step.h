// A training step that is written out: f unrolled by hand, the loss from plain operators, gradients
// from autograd, w <- w - rate g.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "deq/cells/trellisnet.h"
#include "deq/data/readers.h"
#include "deq/gradients/unrolled.h"
#include "deq/tasks/bytes.h"
#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq::testing {

inline constexpr int64_t kLevels = 4;

inline const Corpus& small_corpus() {
  static const Scratch scratch;
  static const Corpus corpus = [] {
    spill(scratch / "text.txt", small_text());
    return Bytes{}.load(scratch / "text.txt");
  }();
  return corpus;
}

/// Nothing random, four levels that are differentiated as they are, plain descent.
inline TrainOptions plain_options() {
  TrainOptions options;
  options.task = Bytes{};
  options.model.cell = TrellisNet{.hidden = 5, .output = 4};
  options.model.initial = {.init_std = 0.3, .embedding_init_std = 0.3};
  options.equilibrium.gradient = Unrolled{.steps = kLevels};
  options.loop.batch = {.batch = 3, .length = 7, .history = 7};
  options.loop.limits.steps = 9;
  options.loop.stability.clip = 0;
  options.loop.optimization = {.optimizer = Sgd{},
                               .schedule = {.rate = 0.5, .decay = ConstantDecay{}}};
  options.eval = {.lanes = 3, .batch = 2, .length = 11, .history = 9};
  return options;
}

/// -log p(target), (B, T), of states z (B, T, D): a tied softmax from plain operators.
inline at::Tensor plain_nats(Model& model, const at::Tensor& z, const at::Tensor& targets) {
  const auto named = model.named_parameters();
  const at::Tensor logits =
      at::matmul(model.cell().output(z), named["embedding.table0"].t()) + named["softmax.bias0"];
  return -logits.log_softmax(2).gather(2, targets.unsqueeze(2)).squeeze(2);
}

/// The step that is written out, on a copy of the trainer's model.
class PlainStep {
 public:
  PlainStep(Trainer& trainer, const TrainOptions& options)
      : options_(options),
        model_(trainer.model().clone()),
        reader_(trainer.corpus().train,
                {.batch = options.loop.batch.batch, .length = options.loop.batch.length}) {
    model_->train();
  }

  /// `levels`, `rate` and `jacobian` are what the options ask of this step; `draws`: whether a
  /// number decides if the Jacobian is weighed.
  void take(int64_t levels, double rate, double jacobian = 0, bool draws = false) {
    const std::vector<at::Tensor> parameters = model_->parameters();
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& p : parameters) gradients.push_back(at::zeros_like(p));
    const int64_t segments = options_.loop.batch.accumulate;
    for (int64_t k = 0; k < segments; ++k) {
      if (draws) at::rand({1}, at::kDouble);
      const at::Tensor loss = segment_loss(levels, jacobian);
      const auto found = torch::autograd::grad({loss}, parameters, {}, {}, false, true);
      for (size_t i = 0; i < parameters.size(); ++i)
        if (found[i].defined()) gradients[i] = gradients[i] + found[i] / double(segments);
    }
    double squares = 0;
    for (const at::Tensor& g : gradients)
      squares += g.to(at::kDouble).square().sum().item<double>();
    norm = std::sqrt(squares);
    const double limit = options_.loop.stability.clip;
    const double scale = limit > 0 && norm > limit ? limit / norm : 1;
    at::NoGradGuard no_tape;
    for (size_t i = 0; i < parameters.size(); ++i)
      at::Tensor(parameters[i]).sub_(gradients[i] * (scale * rate));
  }

  Model& model() { return *model_; }
  /// A segment that is read, and nothing kept of those before.
  void skip() {
    reader_.next();
    histories_.clear();
  }
  double norm = 0, loss = 0, estimate = 0;  // of the last step; of the last segment

 private:
  at::Tensor segment_loss(int64_t levels, double jacobian) {
    const Batch segment = reader_.next();
    if (segment.reset) histories_.clear();
    const Bound f = model_->bind(segment.tokens, histories_).front();
    at::Tensor z =
        at::zeros({segment.tokens.size(0), segment.tokens.size(1), model_->cell().state_width()});
    for (int64_t level = 0; level < levels; ++level) z = f(z);
    histories_ = {f.extend(z.detach(), options_.loop.batch.history)};
    const at::Tensor mean = plain_nats(*model_, z, segment.targets).mean();
    loss = mean.item<double>();
    if (jacobian == 0) return mean;
    const at::Tensor at_z = z.detach().requires_grad_(true), v = at::randn_like(at_z);
    const at::Tensor product =
        torch::autograd::grad({f(at_z)}, {at_z}, {v}, /*retain_graph=*/true, /*create_graph=*/true)
            .front();
    const at::Tensor size = product.square().mean();
    estimate = size.item<double>();
    return mean + jacobian * size;
  }

  TrainOptions options_;
  std::shared_ptr<Model> model_;
  TrainingReader reader_;
  Histories histories_;
};

/// The largest difference of two models' weights.
inline double distance(const Model& a, const Model& b) {
  double largest = 0;
  const auto others = b.named_parameters();
  for (const auto& item : a.named_parameters())
    largest = std::max(largest, (item.value() - others[item.key()]).abs().max().item<double>());
  return largest;
}

/// Both from the same random numbers: what `plain` does is what the step does.
template <class Plain>
StepReport expect_same_step(Trainer& trainer, PlainStep& written, Plain&& plain) {
  at::Generator random = at::globalContext().defaultGenerator(at::kCPU);
  const at::Tensor state = random.get_state();
  const StepReport report = trainer.step();
  random.set_state(state);
  const auto before = written.model().clone();
  plain(written);
  const double moved = distance(*before, written.model());
  EXPECT_GT(moved, 1e-4) << "the step is too small to see";
  EXPECT_LT(distance(trainer.model(), written.model()), 2e-3 * moved + 1e-6);
  return report;
}

}  // namespace deq::testing
