#include "deq/train/trainer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <cmath>

#include "deq/base/device.h"
#include "deq/base/threads.h"
#include "deq/data/random.h"
#include "deq/gradients/unrolled.h"
#include "deq/layers/condition.h"
#include "deq/train/gradient_norm.h"
#include "deq/train/score.h"
#include "deq/train/training_checks.h"

namespace deq {

using at::Tensor;

namespace {

/// In place of a row, where what is drawn belongs to all of them.
constexpr int64_t kOfTheStep = -1;
constexpr int64_t kOfTheJacobian = -2;
constexpr int64_t kOfWhatIsCarried = -3;

/// A function of what it is made of: the same on every machine.
uint64_t seed_of(int64_t seed, int64_t step, int64_t segment, int64_t row) {
  return random_stream({seed, step, segment, row})();
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
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

Trainer::Trainer(const TrainOptions& options, Corpus corpus, std::shared_ptr<ProcessGroup> group)
    : options_(options),
      corpus_(std::move(corpus)),
      shards_(options.loop.batch.shards, std::move(group)),
      model_(
          seeded_model(options, {corpus_.vocabulary.size(), corpus_.answer_vocabulary().size()})),
      reader_(corpus_, {.batch = options.loop.batch.batch,
                        .length = options.loop.batch.length,
                        .seed = options.loop.run.seed,
                        .restart = options.loop.batch.restart}),
      schedule_(options.loop.optimization.schedule, options.loop.limits.steps),
      carried_(options.loop.path),
      remembered_(options.loop.path.start.limit_mb) {
  check_training(options_, *model_, corpus_);
  descent_ = std::make_unique<Descent>(options.loop.optimization.optimizer, parameters_of(*model_));
  average_ = std::make_unique<Average>(parameters_of(*model_), options.loop.path.ema);
  histories_.resize(shards_.own().size());
  if (!shards_.several()) return;
  std::vector<Tensor> parameters;
  for (const auto& [name, parameter] : parameters_of(*model_)) parameters.push_back(parameter);
  gradients_ =
      std::make_unique<GradientSum>(std::move(parameters), shards_.count(), shards_.shared_group());
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
    Batch batch = reader_.next();
    how.z0 = at::Tensor();
    if (remembers()) {
      const Tensor zeros = at::zeros(model_->state_shape(batch.tokens),
                                     at::device(model_->device()).dtype(at::kFloat));
      how.z0 = remembered_.start(batch, zeros);
    }
    return batch;
  }
  Carried::Step step = carried_.next(
      reader_, options_.loop.path.start,
      [this](const Tensor& tokens) { return model_->state_shape(tokens); }, model_->device());
  how.z0 = step.z0;
  return step.batch;
}

void Trainer::seed_draws(int64_t segment, int64_t row) const {
  if (shards_.several())
    at::manual_seed(seed_of(options_.loop.run.seed, step_, segment, row));  // of every device
}

bool Trainer::remembers() const { return options_.loop.path.start.kind == StartKind::Remembered; }

bool Trainer::draw_jacobian(const Place& place) {
  seed_draws(place.index, kOfTheJacobian);  // one draw for all shards
  return jacobian_weight() > 0 &&
         at::rand({1}, at::kDouble).item<double>() < options_.loop.stability.jacobian_frequency;
}

Pass Trainer::pass_one(ForwardOptions how, const Batch& batch, const Place& place) {
  look_for_free_threads();
  const int64_t shard = shards_.own()[place.own];
  const Batch part = shards_.part(batch, shard);
  Histories& histories = histories_[place.own];
  if (part.reset) histories.clear();
  for (History& level : histories) model_->cell().forget(level, part.anew, 0);
  how.jacobian_loss = draw_jacobian(place);
  how.rest_loss = rest_weight() > 0;
  const Rows rows = shards_.rows(shard, batch.tokens.size(0));
  seed_draws(place.index, rows.first);
  Whole whole;
  if (shards_.several()) {
    whole = {batch.targets.ge(0).sum().item<int64_t>(),
             double(rows.count) / double(batch.tokens.size(0))};
    how.on_adjoint = [&](const Report&) { gradients_->mark(); };
    if (place.last) gradients_->last_pass();
  }
  Pass pass = pass_batch(*model_, part, histories, how, {jacobian_weight(), rest_weight()},
                         1.0 / double(options_.loop.batch.accumulate), whole);
  histories = std::move(pass.histories);
  return pass;
}

ShardSums Trainer::shard_of_step(const ForwardOptions& how, const std::vector<Batch>& batches,
                                 int64_t segment, size_t own) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t shard = shards_.own()[own];
  ShardSums sums;
  if (gradients_) gradients_->begin();
  for (size_t k = 0; k < batches.size(); ++k) {
    const int64_t B = batches[k].tokens.size(0), rows = shards_.rows(shard, B).count;
    states_[own] = Tensor();
    if (rows == 0) continue;
    ForwardOptions part = how;
    if (segment == 0) part.z0 = shards_.part(how.z0, shard);
    const Pass pass =
        pass_one(std::move(part), batches[k],
                 {segment * int64_t(batches.size()) + int64_t(k), own, k + 1 == batches.size()});
    if (options_.loop.path.segments > 1 || options_.loop.path.carry > 0 || remembers())
      states_[own] = pass.z;
    sums.add(pass, double(rows) / double(B));
  }
  if (gradients_) gradients_->end();
  sums.seconds = seconds_since(start);
  return sums;
}

/// Of problems that are carried on, as all processes hold them.
void Trainer::keep_states(const Batch& batch, int64_t segment) {
  const int64_t B = batch.tokens.size(0);
  Tensor right;
  if (options_.loop.path.carry_right > 0) {
    std::vector<Tensor> parts;
    for (size_t own = 0; own < states_.size(); ++own) {
      parts.push_back(
          states_[own].defined()
              ? right_problems(*model_, states_[own], shards_.part(batch, shards_.own()[own]))
              : Tensor());
    }
    right = shards_.join(parts, B);
  }
  seed_draws(segment, kOfWhatIsCarried);
  carried_.keep(shards_.join(states_, B), right);
}

StepReport Trainer::step() {
  model_->train();
  const FreeThreads threads;
  const PathOptions& path = options_.loop.path;
  StepReport report;
  report.processes = shards_.group().size();
  report.depth = options_.model.depth.depth;
  report.pretraining = report.depth == 0 && step_ < options_.loop.stability.pretrain_steps;
  seed_draws(0, kOfTheStep);
  ForwardOptions how = forward_of_this_step();
  report.step = step_ + 1;
  report.rate = schedule_.rate(report.step);
  std::vector<Batch> batches;
  for (int64_t k = 0; k < options_.loop.batch.accumulate; ++k) batches.push_back(next_batch(how));
  for (int64_t segment = 0; segment < path.segments; ++segment) {
    descent_->zero_gradients();
    if (gradients_) gradients_->begin_step(report.pretraining);
    states_.resize(shards_.own().size());
    std::vector<ShardSums> sums;
    for (size_t own = 0; own < shards_.own().size(); ++own) {
      ForwardOptions here = how;
      if (segment > 0) here.z0 = states_[own];
      sums.push_back(shard_of_step(here, batches, segment, own));
    }
    if (gradients_) gradients_->finish();
    if (path.carry > 0) keep_states(batches.front(), segment);
    if (remembers())
      remembered_.keep(batches.front(), shards_.join(states_, batches.front().tokens.size(0)));
    add_shards(shards_, sums, report);
    descend(report);
  }
  finish(report, int64_t(batches.size()) * path.segments, path.segments);
  ++step_;
  return report;
}

/// What rank 0 holds.
double Trainer::decided(double value) const {
  if (!shards_.group().several()) return value;
  Tensor held = at::full({1}, value, at::kDouble);
  shards_.group().broadcast(held);
  return held.item<double>();
}

void Trainer::descend(StepReport& report) {
  const double norm =
      decided(shards_.several() ? gradient_norm(parameters_of(*model_)) : descent_->norm());
  descent_->limit(norm, options_.loop.stability.clip);
  report.gradient_norm += norm;
  report.finite = report.finite && std::isfinite(norm) && std::isfinite(report.loss);
  if (report.finite) {
    descent_->step(report.rate);
    average_->step();
  } else {  // what is carried on may hold what made the step non-finite
    histories_.assign(histories_.size(), {});
    carried_.clear();
    remembered_.clear();
  }
  if (auto* own = dynamic_cast<ConditionCell*>(&model_->cell()))
    own->hear(report.loss / double(options_.loop.batch.accumulate));
}

NamedTensors Trainer::weights() const {
  NamedTensors weights = named_tensors(*model_);
  for (const auto& [name, value] : average_->values()) weights[name] = value.detach();
  return weights;
}

Evaluation Trainer::evaluate_valid(const std::function<void(double)>& progress) {
  const Averaged weights(*average_);
  return evaluate(*model_, corpus_.valid, options_.equilibrium, options_.eval, progress, shards_);
}

Evaluation Trainer::evaluate_test(const std::function<void(double)>& progress) {
  return evaluate(*model_, corpus_.test, options_.equilibrium, options_.eval, progress, shards_);
}

}  // namespace deq
