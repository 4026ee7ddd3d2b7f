#pragma once

#include <torch/nn/module.h>

#include "deq/cells/cells.h"
#include "deq/models/adaptive.h"
#include "deq/models/equilibrium.h"
#include "deq/models/explicit.h"
#include "deq/models/mixture.h"

namespace deq {

/// How weights are drawn at the start.
struct InitialOptions {
  double init_std = 0.02;
  double embedding_init_std = 0.02;

  static void fields(auto& self, auto&& field) {
    field("init_std", self.init_std, "standard deviation of the cell's weights at the start",
          above(0));
    field("embedding_init_std", self.embedding_init_std, "and of the embedding's and softmax's",
          above(0));
  }
};

/// All that a language model is built from, but for its vocabulary.
struct ModelOptions {
  CellOptions cell;
  DepthOptions depth;
  EmbeddingOptions embedding;
  MixtureOptions mixture;
  double input_dropout = 0.0;
  double output_dropout = 0.0;
  InitialOptions initial;

  static void fields(auto& self, auto&& field) {
    field.group("cell");
    field("cell", self.cell, "f(z, x)");
    field.group("model");
    field("", self.depth);
    field("embedding", self.embedding);
    field("mixture", self.mixture);
    field("input_dropout", self.input_dropout,
          "share of the embedding's features dropped, for all positions", half_open(0, 1));
    field("output_dropout", self.output_dropout,
          "share of the equilibrium's features dropped, for all positions", half_open(0, 1));
    field("", self.initial);
  }

  bool is_explicit() const { return depth.depth > 0; }
};

/// How a trained model reads its cell's weights.
struct ReadingOptions {
  WeightType weight_type = WeightType::Exact;

  static void fields(auto& self, auto&& field) {
    field("weight_type", self.weight_type,
          "how weights of f's products are read; bfloat16: rounded, half the bytes on a CPU "
          "[exact]");
  }
};

/// One segment through the model.
struct ModelOutput {
  at::Tensor z;  ///< (B, T, D) the equilibrium or the last level, with its tape when gradients
                 ///< are on
  Histories histories;       ///< for the next segment
  Report report;             ///< of the forward solve; of an explicit network only its evaluations
  at::Tensor jacobian_loss;  ///< |J|_F^2 / n at z, when asked for
};

/// How a segment is solved.
struct ForwardOptions {
  EquilibriumOptions equilibrium;
  int64_t history = 0;         ///< positions of history to keep for the next segment
  int64_t subsequence = 0;     ///< positions solved at a time; 0: all
  bool jacobian_loss = false;  ///< estimate it, differentiably
  std::function<void(const Report&)> on_adjoint;
};

/// A language model around one equilibrium, or around the levels of an explicit network of the same
/// cell: embedding -> cell -> softmax.
class LanguageModel : public torch::nn::Module {
 public:
  /// Throws deq::Error for options that do not go together.
  LanguageModel(const ModelOptions& options, int64_t vocabulary);

  /// A copy that shares nothing with this one: parameters and buffers on their devices and of their
  /// types, what of them is trained, the mode of every part, how weights are read. Not the
  /// gradients. Draws no random numbers.
  std::shared_ptr<LanguageModel> clone() const;
  /// The same through LibTorch's interface; on `device`, where one is given.
  std::shared_ptr<torch::nn::Module> clone(const c10::optional<at::Device>& device) const override;

  /// tokens (B, T) int64 in [0, vocabulary), on any device. Throws deq::Error for tokens out of
  /// range and for a scope that needs a causal cell.
  ModelOutput forward(const at::Tensor& tokens, const Histories& histories,
                      const ForwardOptions& options);

  /// -log p(target) in nats, (B, T), of targets (B, T) given a state (B, T, D); 0 where the target
  /// is -1: not scored.
  at::Tensor loss(const at::Tensor& z, const at::Tensor& targets) const;

  /// log p of every token after each position, (B, T, vocabulary).
  at::Tensor log_probabilities(const at::Tensor& z) const;

  const ModelOptions& options() const { return options_; }
  bool is_explicit() const { return options_.is_explicit(); }
  Cell& cell() { return *cells_.front(); }
  const Cell& cell() const { return *cells_.front(); }
  AdaptiveEmbedding& embedding() { return *embedding_; }
  int64_t vocabulary() const { return vocabulary_; }
  /// Where its weights are, and hence what it returns.
  c10::Device device() const { return embedding_->tables().front().device(); }
  /// All, or all but those of embedding and softmax.
  int64_t parameter_count(bool with_embedding) const;

  /// How all of its cells read their weights from now on (Cell::read_weights). Throws deq::Error
  /// for Bfloat16 where they cannot.
  void read_weights(const ReadingOptions& options);
  WeightType weight_type() const { return weight_type_; }

  /// The levels for these tokens, as `forward` applies them; for an equilibrium the one f(., x)
  /// that it solves.
  std::vector<Bound> bind(const at::Tensor& tokens, const Histories& histories);

 private:
  at::Tensor embed(const at::Tensor& tokens);
  std::vector<Bound> bind_embedded(const at::Tensor& x, const Histories& histories);
  ModelOutput solve(const Bound& f, const at::Tensor& z0, const ForwardOptions& options);
  at::Tensor read_out(const at::Tensor& z) const;

  ModelOptions options_;
  int64_t vocabulary_;
  WeightType weight_type_ = WeightType::Exact;
  std::shared_ptr<AdaptiveEmbedding> embedding_;
  std::vector<std::shared_ptr<Cell>> cells_;
  std::shared_ptr<Mixture> mixture_;  // null with one expert
  std::shared_ptr<AdaptiveSoftmax> softmax_;
};

/// Throws deq::Error where a solver's scope, forward or of the adjoint, needs a causal cell and the
/// cell is not.
void check_scope(const EquilibriumOptions& options, bool causal_cell);

}  // namespace deq
