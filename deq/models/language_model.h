// A language model around one equilibrium: embedding -> cell at its equilibrium -> softmax.
#pragma once

#include <torch/nn/module.h>

#include "deq/cells/cells.h"
#include "deq/models/adaptive.h"
#include "deq/models/equilibrium.h"

namespace deq {

struct ModelOptions {
  CellOptions cell = Transformer{};
  EmbeddingOptions embedding;
  double input_dropout = 0.0;
  double output_dropout = 0.0;
  double init_std = 0.02;
  double embedding_init_std = 0.02;

  static void fields(auto& self, auto&& field) {
    field("cell", self.cell, "f(z, x)");
    field("embedding", self.embedding);
    field("input_dropout", self.input_dropout,
          "share of the embedding's features dropped, for all positions", half_open(0, 1));
    field("output_dropout", self.output_dropout,
          "share of the equilibrium's features dropped, for all positions", half_open(0, 1));
    field("init_std", self.init_std, "standard deviation of the cell's weights at the start",
          above(0));
    field("embedding_init_std", self.embedding_init_std, "and of the embedding's and softmax's",
          above(0));
  }
};

/// One segment through the model.
struct ModelOutput {
  at::Tensor z;              ///< (B, T, D) the equilibrium, with its tape when gradients are on
  History history;           ///< for the next segment
  Report report;             ///< of the forward solve
  at::Tensor jacobian_loss;  ///< |J|_F^2 / n at z, when asked for
};

/// How a segment is solved.
struct ForwardOptions {
  EquilibriumOptions equilibrium;
  int64_t history = 0;         ///< positions of history to keep for the next segment
  bool jacobian_loss = false;  ///< estimate it, differentiably
  std::function<void(const Report&)> on_adjoint;
};

class LanguageModel : public torch::nn::Module {
 public:
  LanguageModel(const ModelOptions& options, int64_t vocabulary);

  /// tokens (B, T) int64 in [0, vocabulary). Throws deq::Error for a scope that needs a causal
  /// cell.
  ModelOutput forward(const at::Tensor& tokens, const History& history,
                      const ForwardOptions& options);

  /// -log p(target) in nats, (B, T), of targets (B, T) given an equilibrium (B, T, D).
  at::Tensor loss(const at::Tensor& z, const at::Tensor& targets) const;

  /// log p of every token after each position, (B, T, vocabulary).
  at::Tensor log_probabilities(const at::Tensor& z) const;

  const ModelOptions& options() const { return options_; }
  Cell& cell() { return *cell_; }
  int64_t vocabulary() const { return vocabulary_; }
  int64_t parameter_count(bool with_embedding) const;

  /// f(., x) for these tokens, as `forward` solves it.
  Map bind(const at::Tensor& tokens, const History& history);

 private:
  at::Tensor embed(const at::Tensor& tokens);

  ModelOptions options_;
  int64_t vocabulary_;
  std::shared_ptr<AdaptiveEmbedding> embedding_;
  std::shared_ptr<Cell> cell_;
  std::shared_ptr<AdaptiveSoftmax> softmax_;
};

/// The solver with its scope replaced by what suits the cell: `causal` cells leak nothing by
/// default.
void check_scope(const Solver& solver, bool causal_cell);

}  // namespace deq
