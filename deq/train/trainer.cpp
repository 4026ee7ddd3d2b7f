#include "deq/train/trainer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <random>

#include "deq/base/device.h"
#include "deq/base/threads.h"
#include "deq/gradients/unrolled.h"

namespace deq {

using at::Tensor;

namespace {

constexpr const char* kModel = "model.";
constexpr const char* kOptimizer = "optimizer.";
constexpr const char* kHistory = "history.";
constexpr const char* kDeviceRandom = "random.device";

at::Generator default_generator(at::Device device) {
  return at::globalContext().defaultGenerator(device);
}

/// The entries of `all` whose names begin with `prefix`, without it.
NamedTensors section(const NamedTensors& all, const std::string& prefix) {
  NamedTensors part;
  for (const auto& [name, tensor] : all) {
    if (name.rfind(prefix, 0) == 0) part[name.substr(prefix.size())] = tensor;
  }
  return part;
}

const Tensor& require(const NamedTensors& state, const std::string& name) {
  const auto found = state.find(name);
  DEQ_CHECK(found != state.end(), "checkpoint: '{}' is missing", name);
  return found->second;
}

/// Sums, of which `finish` makes means.
void add(const SegmentPass& pass, StepReport& report) {
  report.loss += pass.loss;
  if (pass.jacobian) {
    ++report.jacobian_estimates;
    report.jacobian += *pass.jacobian;
  }
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

void finish(StepReport& report, int64_t segments) {
  const double share = 1.0 / double(segments);
  for (double* mean :
       {&report.loss, &report.residual, &report.converged_share, &report.evaluations})
    *mean *= share;
  if (report.jacobian_estimates > 0) report.jacobian /= double(report.jacobian_estimates);
  if (report.adjoint_solves == 0) return;
  for (double* mean :
       {&report.adjoint_residual, &report.adjoint_converged_share, &report.adjoint_evaluations})
    *mean /= double(report.adjoint_solves);
}

/// Of each row, from a checkpoint.
std::vector<int64_t> hidden_positions(const Tensor& held, const History& history) {
  const int64_t rows = history.z.defined() ? history.z.size(0) : 0, length = history.length();
  DEQ_CHECK(held.scalar_type() == at::kLong && held.sizes() == at::IntArrayRef({rows}),
            "checkpoint: hidden positions are {} [{}]; expected Long [{}]",
            c10::toString(held.scalar_type()), fmt::join(held.sizes(), ", "), rows);
  std::vector<int64_t> hidden;
  for (int64_t row = 0; row < rows; ++row) {
    hidden.push_back(held[row].item<int64_t>());
    DEQ_CHECK(hidden.back() >= 0 && hidden.back() <= length,
              "checkpoint: {} hidden positions; expected 0 to {}", hidden.back(), length);
  }
  return hidden;
}

}  // namespace

NamedTensors named_tensors(const LanguageModel& model) {
  NamedTensors tensors = parameters_of(model);
  for (const auto& item : model.named_buffers()) tensors[item.key()] = item.value();
  return tensors;
}

void load_weights(LanguageModel& model, const NamedTensors& tensors, const std::string& source) {
  c10::AutoGradMode no_tape(false);
  NamedTensors own = named_tensors(model);
  for (const auto& [name, tensor] : tensors) {
    DEQ_CHECK(own.count(name), "{}: weight '{}' does not belong to this model", source, name);
  }
  for (auto& [name, tensor] : own) {
    const auto found = tensors.find(name);
    DEQ_CHECK(found != tensors.end(), "{}: weight '{}' is missing", source, name);
    DEQ_CHECK(found->second.sizes() == tensor.sizes(),
              "{}: weight '{}' has shape [{}]; expected [{}]", source, name,
              fmt::join(found->second.sizes(), ", "), fmt::join(tensor.sizes(), ", "));
  }
  for (auto& [name, tensor] : own) tensor.copy_(tensors.at(name));
}

Trainer::Trainer(const TrainOptions& options, Corpus corpus)
    : options_(options),
      corpus_(std::move(corpus)),
      model_(seeded_model(options, corpus_.vocabulary.size())),
      reader_(corpus_.train, {.batch = options.loop.batch.batch,
                              .length = options.loop.batch.length,
                              .seed = options.loop.run.seed,
                              .restart = options.loop.batch.restart}),
      schedule_(options.loop.optimization.schedule, options.loop.limits.steps) {
  if (!model_->is_explicit()) check_scope(options.equilibrium, model_->cell().causal());
  for (const int64_t length : {options.loop.batch.subsequence, options.eval.subsequence}) {
    DEQ_CHECK(length == 0 || model_->cell().causal(),
              "subsequence = {}: positions of this cell depend on later ones; expected 0", length);
  }
  DEQ_CHECK(options.loop.batch.restart == 0 || options.loop.batch.history > 0,
            "restart = {} with history = 0: every segment begins anew; expected 0, or a history",
            options.loop.batch.restart);
  descent_ = std::make_unique<Descent>(options.loop.optimization.optimizer, parameters_of(*model_));
}

int64_t Trainer::tokens_per_step() const {
  return reader_.tokens_per_segment() * options_.loop.batch.accumulate;
}

EquilibriumOptions Trainer::equilibrium_of_this_step() {
  const StabilityOptions& stability = options_.loop.stability;
  EquilibriumOptions equilibrium = options_.equilibrium;
  if (options_.model.is_explicit()) return equilibrium;
  if (step_ < stability.pretrain_steps) {
    equilibrium.gradient = Unrolled{.steps = stability.pretrain_depth};
  } else if (stability.fewer_steps > 0) {
    const int64_t fewer = at::randint(stability.fewer_steps + 1, {1}, at::kLong).item<int64_t>();
    equilibrium.stop.max_steps = std::max<int64_t>(1, equilibrium.stop.max_steps - fewer);
  }
  return equilibrium;
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

SegmentPass Trainer::one_segment(ForwardOptions how) {
  look_for_free_threads();
  const Segment segment = reader_.next();
  if (segment.reset) histories_.clear();
  for (History& level : histories_) model_->cell().forget(level, segment.anew, 0);
  const double weight = jacobian_weight();
  how.jacobian_loss = weight > 0 && at::rand({1}, at::kDouble).item<double>() <
                                        options_.loop.stability.jacobian_frequency;
  SegmentPass pass = pass_segment(*model_, segment, histories_, how, weight,
                                  1.0 / double(options_.loop.batch.accumulate));
  histories_ = std::move(pass.histories);
  return pass;
}

StepReport Trainer::step() {
  model_->train();
  const FreeThreads threads;
  StepReport report;
  report.depth = options_.model.depth.depth;
  report.pretraining = report.depth == 0 && step_ < options_.loop.stability.pretrain_steps;
  ForwardOptions how = training_forward(options_, corpus_.train.sequences());
  how.equilibrium = equilibrium_of_this_step();
  descent_->zero_gradients();
  const int64_t segments = options_.loop.batch.accumulate;
  for (int64_t k = 0; k < segments; ++k) add(one_segment(how), report);
  finish(report, segments);
  ++step_;
  report.step = step_;
  report.rate = schedule_.rate(step_);
  report.gradient_norm = descent_->clip(options_.loop.stability.clip);
  report.finite =
      report.finite && std::isfinite(report.gradient_norm) && std::isfinite(report.loss);
  if (report.finite) {
    descent_->step(report.rate);
  } else {
    histories_.clear();  // they may hold what made the step non-finite
  }
  return report;
}

Evaluation Trainer::evaluate_valid(const std::function<void(double)>& progress) {
  return evaluate(*model_, corpus_.valid, options_.equilibrium, options_.eval, progress);
}

Evaluation Trainer::evaluate_test(const std::function<void(double)>& progress) {
  return evaluate(*model_, corpus_.test, options_.equilibrium, options_.eval, progress);
}

NamedTensors Trainer::state() const {
  NamedTensors state;
  for (const auto& [name, tensor] : named_tensors(*model_)) state[kModel + name] = tensor.detach();
  for (const auto& [name, tensor] : descent_->state()) state[kOptimizer + name] = tensor;
  for (size_t level = 0; level < histories_.size(); ++level) {
    const std::string prefix = kHistory + std::to_string(level);
    if (histories_[level].z.defined()) state[prefix + ".z"] = histories_[level].z;
    if (histories_[level].x.defined()) state[prefix + ".x"] = histories_[level].x;
    if (!histories_[level].hidden.empty())
      state[prefix + ".hidden"] = at::tensor(histories_[level].hidden, at::kLong);
  }
  state["random"] = default_generator(at::kCPU).get_state();
  if (model_->device().is_cuda())
    state[kDeviceRandom] = default_generator(model_->device()).get_state();
  state["step"] = at::scalar_tensor(step_, at::kLong);
  state["position"] = at::scalar_tensor(reader_.position(), at::kLong);
  for (const auto& [name, value] : schedule_.state())
    state["schedule." + name] = at::scalar_tensor(value, at::kDouble);
  return state;
}

void Trainer::restore(const NamedTensors& state) {
  load_weights(*model_, section(state, kModel), "checkpoint");
  descent_->restore(section(state, kOptimizer));
  histories_.clear();
  const NamedTensors histories = section(state, kHistory);
  if (!histories.empty()) histories_.resize(size_t(options_.model.depth.levels()));
  for (size_t level = 0; level < histories_.size(); ++level) {
    const auto part = [&](const char* name) {
      const auto found = histories.find(std::to_string(level) + name);
      return found == histories.end() ? Tensor() : found->second;
    };
    for (const auto& [name, place] :
         {std::pair{".z", &histories_[level].z}, {".x", &histories_[level].x}}) {
      const Tensor held = part(name);
      if (held.defined()) *place = held.to(model_->device());
    }
    if (const Tensor hidden = part(".hidden"); hidden.defined())
      histories_[level].hidden = hidden_positions(hidden, histories_[level]);
  }
  std::map<std::string, double> schedule;
  for (const auto& [name, tensor] : section(state, "schedule."))
    schedule[name] = tensor.item<double>();
  schedule_.restore(schedule);
  for (const char* name : {"step", "position"}) {
    DEQ_CHECK(require(state, name).numel() == 1,
              "checkpoint: '{}' has shape [{}]; expected one number", name,
              fmt::join(require(state, name).sizes(), ", "));
  }
  step_ = require(state, "step").item<int64_t>();
  reader_.seek(require(state, "position").item<int64_t>());
  default_generator(at::kCPU).set_state(require(state, "random"));
  // A run that goes on with another kind of device starts that one's numbers from the seed.
  if (model_->device().is_cuda() && state.count(kDeviceRandom))
    default_generator(model_->device()).set_state(state.at(kDeviceRandom));
}

}  // namespace deq
