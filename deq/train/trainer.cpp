#include "deq/train/trainer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <random>

#include "deq/base/device.h"
#include "deq/base/threads.h"
#include "deq/gradients/unrolled.h"
#include "deq/train/score.h"

namespace deq {

using at::Tensor;

namespace {

/// Sums, of which `finish` makes means.
void add(const Pass& pass, StepReport& report) {
  report.loss += pass.loss;
  if (pass.jacobian) {
    ++report.jacobian_estimates;
    report.jacobian += *pass.jacobian;
  }
  report.rest += pass.rest.value_or(0);
  report.residual += pass.forward.mean_residual();
  report.converged_share += pass.forward.converged_share();
  report.evaluations += double(pass.forward.evaluations);
  if (!pass.adjoint) return;
  ++report.adjoint_solves;
  report.adjoint_residual += pass.adjoint->mean_residual();
  report.adjoint_converged_share += pass.adjoint->converged_share();
  report.adjoint_evaluations += double(pass.adjoint->evaluations);
  // Its best iterate may be finite, and would pass for a gradient.
  if (pass.adjoint->count(Reason::NonFinite) > 0) report.finite = false;
}

/// Of sums over so many batches, whose gradients were so many steps.
void finish(StepReport& report, int64_t batches, int64_t descents) {
  const double share = 1.0 / double(batches);
  report.gradient_norm /= double(descents);
  for (double* mean :
       {&report.loss, &report.rest, &report.residual, &report.converged_share, &report.evaluations})
    *mean *= share;
  if (report.jacobian_estimates > 0) report.jacobian /= double(report.jacobian_estimates);
  if (report.adjoint_solves == 0) return;
  for (double* mean :
       {&report.adjoint_residual, &report.adjoint_converged_share, &report.adjoint_evaluations})
    *mean /= double(report.adjoint_solves);
}

/// The average of a model's weights in their place, for a scope.
class Averaged {
 public:
  explicit Averaged(Average& average) : average_(average) { average_.swap(); }
  ~Averaged() { average_.swap(); }

 private:
  Average& average_;
};

}  // namespace

Trainer::Trainer(const TrainOptions& options, Corpus corpus)
    : options_(options),
      corpus_(std::move(corpus)),
      model_(
          seeded_model(options, {corpus_.vocabulary.size(), corpus_.answer_vocabulary().size()})),
      reader_(corpus_, {.batch = options.loop.batch.batch,
                        .length = options.loop.batch.length,
                        .seed = options.loop.run.seed,
                        .restart = options.loop.batch.restart}),
      schedule_(options.loop.optimization.schedule, options.loop.limits.steps),
      carried_(options.loop.path) {
  check_options();
  descent_ = std::make_unique<Descent>(options.loop.optimization.optimizer, parameters_of(*model_));
  average_ = std::make_unique<Average>(parameters_of(*model_), options.loop.path.ema);
}

void Trainer::check_options() const {
  const BatchOptions& batch = options_.loop.batch;
  const PathOptions& path = options_.loop.path;
  const bool causal = model_->cell().causal();
  if (!model_->is_explicit()) check_scope(options_.equilibrium, causal);
  for (const int64_t length : {batch.subsequence, options_.eval.subsequence}) {
    DEQ_CHECK(length == 0 || causal,
              "subsequence = {}: positions of this cell depend on later ones; expected 0", length);
  }
  DEQ_CHECK(batch.restart == 0 || batch.history > 0,
            "restart = {} with history = 0: every segment begins anew; expected 0, or a history",
            batch.restart);
  DEQ_CHECK(
      path.noise == 0 || batch.subsequence == 0,
      "noise = {} with subsequence = {}: parts are solved without noise; expected one of them "
      "to be 0",
      path.noise, batch.subsequence);
  const Gradient& gradient = options_.equilibrium.gradient;
  DEQ_CHECK(!path.progressive || gradient.is<Unrolled>() || gradient.is<Checkpointed>(),
            "progressive = true with gradient {}: it takes a random number of steps with a tape; "
            "expected unrolled or checkpointed",
            gradient.name());
  DEQ_CHECK(path.segments == 1 || batch.accumulate == 1,
            "segments = {} with accumulate = {}: each is a step of the optimiser; expected one of "
            "them to be 1",
            path.segments, batch.accumulate);
  DEQ_CHECK(path.carry == 0 || batch.accumulate == 1,
            "carry = {} with accumulate = {}: states are those of one batch; expected 1",
            path.carry, batch.accumulate);
  DEQ_CHECK(path.carry != 1,
            "carry = 1: a problem of one step carries nothing; expected 0 or >= 2");
  DEQ_CHECK(path.carry_grace == 0 || path.carry_grace < path.carry,
            "carry-grace = {} with carry = {}: a problem may have gone before it has a loss; "
            "expected less",
            path.carry_grace, path.carry);
  DEQ_CHECK(path.carry == 0 || path.start.kind != StartKind::Input,
            "carry = {} with start = input; expected zero, normal or mixed", path.carry);
}

int64_t Trainer::tokens_per_step() const {
  return reader_.tokens_per_segment() * options_.loop.batch.accumulate;
}

ForwardOptions Trainer::forward_of_this_step() {
  ForwardOptions how = training_forward(options_, corpus_.train.sequences());
  if (options_.model.is_explicit()) return how;
  const StabilityOptions& stability = options_.loop.stability;
  const PathOptions& path = options_.loop.path;
  const auto draw = [](int64_t low, int64_t high) {  // both included
    return at::randint(low, high + 1, {1}, at::kLong).item<int64_t>();
  };
  if (step_ < stability.pretrain_steps) {
    how.equilibrium.gradient = Unrolled{.steps = stability.pretrain_depth};
    return how;
  }
  int64_t& most = how.equilibrium.stop.max_steps;
  if (stability.fewer_steps > 0) most = std::max<int64_t>(1, most - draw(0, stability.fewer_steps));
  if (!path.progressive) return how;
  how.free_steps = draw(0, most - 1);
  const int64_t taped = draw(1, most - how.free_steps);
  Gradient& gradient = how.equilibrium.gradient;
  if (auto* checkpointed = gradient.get_if<Checkpointed>())
    checkpointed->steps = taped;
  else
    gradient = Unrolled{.steps = taped};
  return how;
}

double Trainer::jacobian_weight() const {
  const StabilityOptions& stability = options_.loop.stability;
  if (options_.model.is_explicit() || stability.jacobian_weight == 0 ||
      step_ < stability.pretrain_steps)
    return 0;
  const int64_t every = stability.jacobian_growth_every;
  const int64_t growths = every > 0 ? (step_ - stability.pretrain_steps) / every : 0;
  return stability.jacobian_weight + 0.1 * double(growths);
}

double Trainer::rest_weight() const {
  const PathOptions& path = options_.loop.path;
  const int64_t first = std::max(path.rest_after, options_.loop.stability.pretrain_steps);
  return options_.model.is_explicit() || step_ < first ? 0 : path.rest_weight;
}

Batch Trainer::next_batch(ForwardOptions& how) {
  if (options_.loop.path.carry == 0) {
    how.z0 = at::Tensor();
    return reader_.next();
  }
  Carried::Step step = carried_.next(reader_, options_.loop.path.start,
                                     model_->cell().state_width(), model_->device());
  how.z0 = step.z0;
  return step.batch;
}

Pass Trainer::pass_one(ForwardOptions how, const Batch& batch) {
  look_for_free_threads();
  if (batch.reset) histories_.clear();
  for (History& level : histories_) model_->cell().forget(level, batch.anew, 0);
  const double weight = jacobian_weight();
  how.jacobian_loss = weight > 0 && at::rand({1}, at::kDouble).item<double>() <
                                        options_.loop.stability.jacobian_frequency;
  how.rest_loss = rest_weight() > 0;
  Pass pass = pass_batch(*model_, batch, histories_, how, {weight, rest_weight()},
                         1.0 / double(options_.loop.batch.accumulate));
  histories_ = std::move(pass.histories);
  return pass;
}

StepReport Trainer::step() {
  model_->train();
  const FreeThreads threads;
  const PathOptions& path = options_.loop.path;
  StepReport report;
  report.depth = options_.model.depth.depth;
  report.pretraining = report.depth == 0 && step_ < options_.loop.stability.pretrain_steps;
  ForwardOptions how = forward_of_this_step();
  report.step = step_ + 1;
  report.rate = schedule_.rate(report.step);
  const int64_t batches = options_.loop.batch.accumulate;
  Batch batch;
  for (int64_t segment = 0; segment < path.segments; ++segment) {
    descent_->zero_gradients();
    for (int64_t k = 0; k < batches; ++k) {
      if (segment == 0) batch = next_batch(how);
      const Pass pass = pass_one(how, batch);
      if (path.segments > 1) how.z0 = pass.z;
      if (path.carry > 0)
        carried_.keep(pass.z,
                      path.carry_right > 0 ? right_problems(*model_, pass.z, batch) : Tensor());
      add(pass, report);
    }
    descend(report);
  }
  finish(report, batches * path.segments, path.segments);
  ++step_;
  return report;
}

void Trainer::descend(StepReport& report) {
  const double norm = descent_->clip(options_.loop.stability.clip);
  report.gradient_norm += norm;
  report.finite = report.finite && std::isfinite(norm) && std::isfinite(report.loss);
  if (report.finite) {
    descent_->step(report.rate);
    average_->step();
  } else {  // what is carried on may hold what made the step non-finite
    histories_.clear();
    carried_.clear();
  }
}

NamedTensors Trainer::weights() const {
  NamedTensors weights = named_tensors(*model_);
  for (const auto& [name, value] : average_->values()) weights[name] = value.detach();
  return weights;
}

Evaluation Trainer::evaluate_valid(const std::function<void(double)>& progress) {
  const Averaged weights(*average_);
  return evaluate(*model_, corpus_.valid, options_.equilibrium, options_.eval, progress);
}

Evaluation Trainer::evaluate_test(const std::function<void(double)>& progress) {
  return evaluate(*model_, corpus_.test, options_.equilibrium, options_.eval, progress);
}

}  // namespace deq
