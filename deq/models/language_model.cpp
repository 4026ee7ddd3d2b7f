#include "deq/models/language_model.h"

#include <ATen/ATen.h>

#include "deq/cells/dropout.h"
#include "deq/gradients/jacobian.h"

namespace deq {

using at::Tensor;

void check_scope(const Solver& solver, bool causal_cell) {
  const Scope scope = scope_of(solver);
  DEQ_CHECK(causal_cell || scope == Scope::Sample,
            "solver-scope = {}: positions of this cell depend on later ones; expected sample, or a "
            "causal cell",
            Names<Scope>::values[size_t(scope)]);
}

LanguageModel::LanguageModel(const ModelOptions& options, int64_t vocabulary)
    : options_(options), vocabulary_(vocabulary) {
  validate(options, "Model");
  DEQ_CHECK(vocabulary >= 2, "LanguageModel: vocabulary of {} tokens; expected >= 2", vocabulary);
  cell_ = register_module("cell", make_cell(options.cell));
  const Clusters clusters(options.embedding, vocabulary, cell_->input_width());
  embedding_ = register_module("embedding", std::make_shared<AdaptiveEmbedding>(clusters));
  softmax_ = register_module(
      "softmax", std::make_shared<AdaptiveSoftmax>(clusters, options.embedding, *embedding_));
  cell_->initialise(options.init_std);
  embedding_->initialise(options.embedding_init_std, options.embedding_init_std);
  softmax_->initialise(options.embedding_init_std, options.embedding_init_std);
}

Tensor LanguageModel::embed(const Tensor& tokens) {
  DEQ_CHECK(tokens.dim() == 2 && tokens.scalar_type() == at::kLong,
            "LanguageModel: tokens of shape [{}], {}; expected (batch, positions), Long",
            fmt::join(tokens.sizes(), ", "), c10::toString(tokens.scalar_type()));
  const Tensor x = embedding_->forward(tokens);
  return masked(x,
                dropout_mask({x.size(0), 1, x.size(2)}, options_.input_dropout, is_training(), x));
}

Map LanguageModel::bind(const Tensor& tokens, const History& history) {
  return cell_->bind(embed(tokens), history);
}

ModelOutput LanguageModel::forward(const Tensor& tokens, const History& history,
                                   const ForwardOptions& options) {
  check_scope(options.equilibrium.solver, cell_->causal());
  const Tensor x = embed(tokens);
  const Map f = cell_->bind(x, history);
  const Tensor z0 = at::zeros({tokens.size(0), tokens.size(1), cell_->state_width()},
                              x.options().requires_grad(false));
  ModelOutput output;
  Equilibrated found = equilibrate(f, z0, options.equilibrium, options.on_adjoint);
  output.report = std::move(found.report);
  output.history = cell_->extend(history, x.detach(), found.z.detach(), options.history);
  if (options.jacobian_loss) output.jacobian_loss = jacobian_loss(f, found.z.detach());
  output.z = std::move(found.z);
  return output;
}

Tensor LanguageModel::loss(const Tensor& z, const Tensor& targets) const {
  const Tensor mask =
      dropout_mask({z.size(0), 1, z.size(2)}, options_.output_dropout, is_training(), z);
  const Tensor hidden = masked(z, mask).reshape({-1, z.size(2)});
  return softmax_->loss(hidden, targets.reshape({-1})).view(targets.sizes());
}

Tensor LanguageModel::log_probabilities(const Tensor& z) const {
  return softmax_->log_probabilities(z.reshape({-1, z.size(2)}))
      .view({z.size(0), z.size(1), vocabulary_});
}

int64_t LanguageModel::parameter_count(bool with_embedding) const {
  int64_t count = 0;
  for (const auto& item : named_parameters()) {
    const bool table = item.key().find("table") != std::string::npos;
    if (with_embedding || !table) count += item.value().numel();
  }
  return count;
}

}  // namespace deq
