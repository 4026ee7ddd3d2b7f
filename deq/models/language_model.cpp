#include "deq/models/language_model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/cells/dropout.h"
#include "deq/gradients/implicit.h"
#include "deq/gradients/jacobian.h"
#include "deq/models/subsequences.h"

namespace deq {

using at::Tensor;

namespace {

void check_scope(const Solver& solver, bool causal_cell, const char* name) {
  const Scope scope = scope_of(solver);
  DEQ_CHECK(causal_cell || !by_position(scope),
            "{} = {}: positions of this cell depend on later ones; expected sample or whole, or a "
            "causal cell",
            name, Names<Scope>::values[size_t(scope)]);
}

/// The ids, checked where they are (of those on the CPU a GPU need not be asked), on `device`.
Tensor checked_ids(const char* what, const Tensor& ids, int64_t lowest, int64_t vocabulary,
                   c10::Device device) {
  DEQ_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kLong,
            "LanguageModel: {}s of shape [{}], {}; expected (batch, positions), Long", what,
            fmt::join(ids.sizes(), ", "), c10::toString(ids.scalar_type()));
  if (ids.numel() == 0) return ids.to(device);
  const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  DEQ_CHECK(low >= lowest && high < vocabulary, "LanguageModel: {} {}; expected {} to {}", what,
            low < lowest ? low : high, lowest, vocabulary - 1);
  return ids.to(device);
}

/// Cells that go with a depth: one that does not depend on x cannot be solved, and its weights can
/// only be shared where that is asked for.
void check_depth(const ModelOptions& options, const Cell& cell) {
  const char* name = options.cell.name();
  DEQ_CHECK(options.depth.depth > 0 || options.depth.injection,
            "injection = false: f would not depend on its input; expected true, or depth >= 1");
  DEQ_CHECK(options.depth.depth > 0 || cell.injects(),
            "cell = {} is no equilibrium: it does not depend on its state; expected depth >= 1",
            name);
  DEQ_CHECK(
      cell.injects() || !options.depth.injection || !options.depth.tied || options.depth.depth <= 1,
      "tied = true: levels of {} see no input besides their state; expected tied = false, or "
      "injection = false to share weights all the same",
      name);
  DEQ_CHECK(options.depth.injection || !cell.injects(),
            "injection = false: levels of {} always see x; expected true", name);
  DEQ_CHECK(options.depth.depth > 0 || (options.depth.tied && !options.depth.checkpointed),
            "tied = {}, checkpointed = {}: an equilibrium has one level; expected depth >= 1 with "
            "them",
            options.depth.tied, options.depth.checkpointed);
  DEQ_CHECK(options.mixture.experts > 1 || options.mixture.dropout == 0,
            "mixture-dropout = {}: nothing is mixed; expected mixture-experts >= 2 with it",
            options.mixture.dropout);
}

}  // namespace

void check_scope(const EquilibriumOptions& options, bool causal_cell) {
  check_scope(options.solver, causal_cell, "solver-scope");
  if (const auto* implicit = options.gradient.get_if<Implicit>())
    check_scope(implicit->solver, causal_cell, "gradient-solver-scope");
}

LanguageModel::LanguageModel(const ModelOptions& options, int64_t vocabulary)
    : options_(options), vocabulary_(vocabulary) {
  validate(options, "Model");
  DEQ_CHECK(vocabulary >= 2, "LanguageModel: vocabulary of {} tokens; expected >= 2", vocabulary);
  const int64_t count = options.depth.cells();
  for (int64_t level = 0; level < count; ++level) {
    const CellPlace place{level, options.depth.injection};
    cells_.push_back(register_module(count == 1 ? "cell" : "cell" + std::to_string(level),
                                     make_cell(options.cell, place)));
  }
  check_depth(options, cell());
  const Clusters clusters(options.embedding, vocabulary, cell().input_width());
  embedding_ = register_module("embedding",
                               std::make_shared<AdaptiveEmbedding>(clusters, options.embedding));
  int64_t read = cell().output_width();
  if (options.mixture.experts > 1) {
    mixture_ = register_module(
        "mixture", std::make_shared<Mixture>(options.mixture, read, cell().input_width()));
    read = cell().input_width();
  }
  softmax_ = register_module(
      "softmax", std::make_shared<AdaptiveSoftmax>(Clusters(options.embedding, vocabulary, read),
                                                   options.embedding, *embedding_));
  for (const auto& cell : cells_) cell->initialise(options.initial.init_std);
  const double std = options.initial.embedding_init_std;
  embedding_->initialise(std);
  if (mixture_) mixture_->initialise(std);
  softmax_->initialise(std);
}

std::shared_ptr<LanguageModel> LanguageModel::clone() const {
  c10::AutoGradMode no_tape(false);
  at::Generator random = at::globalContext().defaultGenerator(at::kCPU);
  const Tensor state = random.get_state();  // of the weights that are written over
  const auto copy = std::make_shared<LanguageModel>(options_, vocabulary_);
  random.set_state(state);
  const auto take = [](const auto& items, const auto& into) {
    for (const auto& item : items) {
      Tensor tensor = *into.find(item.key());
      tensor.set_data(item.value().detach().clone());
      tensor.set_requires_grad(item.value().requires_grad());
    }
  };
  take(named_parameters(), copy->named_parameters());
  take(named_buffers(), copy->named_buffers());
  copy->train(is_training());
  const auto parts = modules(/*include_self=*/false), copied = copy->modules(false);
  for (size_t i = 0; i < parts.size(); ++i) copied[i]->train(parts[i]->is_training());
  copy->embedding_->hold_row(embedding_->held_row());
  copy->read_weights({weight_type_});
  return copy;
}

std::shared_ptr<torch::nn::Module> LanguageModel::clone(
    const c10::optional<at::Device>& device) const {
  const auto copy = clone();
  if (device) copy->to(*device);
  return copy;
}

void LanguageModel::read_weights(const ReadingOptions& options) {
  for (const auto& cell : cells_)
    DEQ_CHECK(cell->read_weights(options.weight_type),
              "weight-type = bfloat16: cell '{}' reads its weights as they are; expected exact",
              options_.cell.name());
  weight_type_ = options.weight_type;
}

Tensor LanguageModel::embed(const Tensor& tokens) {
  const Tensor x = embedding_->forward(checked_ids("token", tokens, 0, vocabulary_, device()));
  return masked(x,
                dropout_mask({x.size(0), 1, x.size(2)}, options_.input_dropout, is_training(), x));
}

std::vector<Bound> LanguageModel::bind(const Tensor& tokens, const Histories& histories) {
  return bind_embedded(embed(tokens), histories);
}

std::vector<Bound> LanguageModel::bind_embedded(const Tensor& x, const Histories& histories) {
  const auto levels = size_t(options_.depth.levels());
  DEQ_CHECK(histories.empty() || histories.size() == levels,
            "LanguageModel: histories of {} levels; expected {}", histories.size(), levels);
  const Histories seen = histories.empty() ? Histories(levels) : histories;
  if (cells_.size() == 1) return cells_.front()->bind_levels(x, seen);
  std::vector<Bound> bound;
  for (size_t level = 0; level < levels; ++level)
    bound.push_back(cells_[level]->bind(x, seen[level]));
  return bound;
}

ModelOutput LanguageModel::forward(const Tensor& tokens, const Histories& histories,
                                   const ForwardOptions& options) {
  const Tensor x = embed(tokens);
  const std::vector<Bound> levels = bind_embedded(x, histories);
  const Tensor z0 = cell().injects()
                        ? at::zeros({tokens.size(0), tokens.size(1), cell().state_width()},
                                    x.options().requires_grad(false))
                        : x;
  if (!is_explicit()) return solve(levels.front(), z0, options);
  ExplicitOutput found = run_levels(levels, z0, options.history, options_.depth.checkpointed);
  ModelOutput output;
  output.z = std::move(found.z);
  output.histories = std::move(found.histories);
  output.report.evaluations = options_.depth.depth;
  return output;
}

ModelOutput LanguageModel::solve(const Bound& f, const Tensor& z0, const ForwardOptions& options) {
  const EquilibriumOptions& how = options.equilibrium;
  check_scope(how, cell().causal());
  const auto* implicit = how.gradient.get_if<Implicit>();
  DEQ_CHECK(
      !implicit || implicit->shine == 0 || options.subsequence == 0,
      "gradient-shine = {} with subsequence = {}: parts are solved without a whole that could "
      "be learned from; expected 0",
      implicit ? implicit->shine : 0, options.subsequence);
  Forward forward;
  forward.stop = how.stop;
  forward.on_adjoint = options.on_adjoint;
  forward.solve = [&](const Map& map, const Tensor& start) {
    return options.subsequence > 0
               ? solve_by_parts(f, start, options.subsequence, how.solver, how.stop)
               : deq::solve(map, start, how.solver, how.stop);
  };
  ModelOutput output;
  Equilibrated found = equilibrate(f.f, z0, how.gradient, forward);
  output.report = std::move(found.report);
  output.histories = {f.extend(found.z.detach(), options.history)};
  if (options.jacobian_loss) output.jacobian_loss = jacobian_loss(f.f, found.z.detach());
  output.z = std::move(found.z);
  return output;
}

/// What the softmax reads of states (B, T, D).
Tensor LanguageModel::read_out(const Tensor& z) const {
  const Tensor hidden = cell().output(z);
  return masked(hidden, dropout_mask({z.size(0), 1, hidden.size(2)}, options_.output_dropout,
                                     is_training(), hidden));
}

Tensor LanguageModel::loss(const Tensor& z, const Tensor& expected) const {
  const Tensor targets = checked_ids("target", expected, -1, vocabulary_, z.device());
  const Tensor hidden = read_out(z), known = targets.clamp_min(0);
  Tensor loss;
  if (mixture_) {
    const Mixture::Output mixed = mixture_->forward(hidden);
    const Tensor each = known.unsqueeze(2).expand(mixed.log_share.sizes());  // (B, T, K)
    const Tensor losses = softmax_->loss(mixed.states.reshape({-1, mixed.states.size(3)}),
                                         each.reshape({-1}), ops::LossUse::Any);
    loss = -(mixed.log_share - losses.view(mixed.log_share.sizes())).logsumexp(2);
  } else {
    loss = softmax_->loss(hidden.reshape({-1, hidden.size(2)}), known.reshape({-1}))
               .view(targets.sizes());
  }
  return loss.masked_fill(targets < 0, 0);
}

Tensor LanguageModel::log_probabilities(const Tensor& z) const {
  const Tensor hidden = read_out(z);
  const auto all = [&](const Tensor& states) {
    auto shape = states.sizes().vec();
    shape.back() = vocabulary_;
    return softmax_->log_probabilities(states.reshape({-1, states.size(-1)})).view(shape);
  };
  if (!mixture_) return all(hidden);
  const Mixture::Output mixed = mixture_->forward(hidden);
  return (mixed.log_share.unsqueeze(3) + all(mixed.states)).logsumexp(2);
}

int64_t LanguageModel::parameter_count(bool with_embedding) const {
  int64_t count = 0;
  for (const auto& item : named_parameters()) {
    const bool embedding =
        item.key().rfind("embedding.", 0) == 0 || item.key().rfind("softmax.", 0) == 0;
    if (with_embedding || !embedding) count += item.value().numel();
  }
  return count;
}

}  // namespace deq
