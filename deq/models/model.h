// A model: what reads its input, a layer, and a head that answers.
#pragma once

#include <torch/nn/module.h>

#include "deq/halting/halting.h"
#include "deq/heads/adaptive.h"
#include "deq/heads/head.h"
#include "deq/heads/mixture.h"
#include "deq/heads/readings.h"
#include "deq/heads/values.h"
#include "deq/layers/layer.h"

namespace deq {

class HaltingUnit;

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

/// What of its problems a model reads and answers.
struct EndOptions {
  Reading reading = Reading::Symbols;
  int64_t row = 28;
  bool pool = false;
  ValueOptions values;

  static void fields(auto& self, auto&& field) {
    field("reading", self.reading, "what a symbol stands for to a model");
    field("row", self.row, "values of a row", between(1, 1 << 16));
    field("pool", self.pool, "answer from the mean of all places' states, not from each one's own");
    field("", self.values);
  }
};

/// All that a model is built from, but for its vocabularies.
struct ModelOptions {
  CellOptions cell;
  DepthOptions depth;
  EmbeddingOptions embedding;
  MixtureOptions mixture;
  double input_dropout = 0.0;
  double output_dropout = 0.0;
  InitialOptions initial;
  EndOptions ends;
  Halting halting;

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
    field("", self.ends);
    field("halting", self.halting, "rule by which a problem's plain steps end at test time");
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

/// How many symbols a model reads, and among how many it answers. Of real values the marks
/// (base/levels.h) and the columns, of both alike.
struct Vocabularies {
  int64_t inputs = 0;
  int64_t answers = 0;
};

/// Reader -> layer -> head, around one equilibrium or around the levels of an explicit network of
/// the same cell. Of problems that stand alone, or of texts (language_model.h).
class Model : public torch::nn::Module {
 public:
  /// Throws deq::Error for options that do not go together.
  Model(const ModelOptions& options, const Vocabularies& symbols);

  /// A copy that shares nothing with this one: parameters and buffers on their devices and of their
  /// types, what of them is trained, the mode of every part, how weights are read. Not the
  /// gradients. Draws no random numbers.
  std::shared_ptr<Model> clone() const;
  /// The same through LibTorch's interface; on `device`, where one is given.
  std::shared_ptr<torch::nn::Module> clone(const c10::optional<at::Device>& device) const override;

  /// tokens (B, T) int64 in [0, inputs), on any device; of grids (B, H, W), whose state is (B, H,
  /// W, D), or (B, H, D) where rows are read, or the columns of a series. Throws deq::Error for
  /// tokens out of range and for a scope that needs a causal cell.
  LayerOutput forward(const at::Tensor& tokens, const Histories& histories,
                      const ForwardOptions& options);

  /// -log p(target) in nats, of targets (B, T) int64 given a state (B, T, D); 0 where the target is
  /// -1: not scored. Of a model that reads rows or pools, targets stand as its tokens do. Of real
  /// values an error instead, in their own scale.
  at::Tensor loss(const at::Tensor& z, const at::Tensor& targets) const;

  /// log p of every answer at each position, (B, T, answers); of each symbol of a row, where rows
  /// are read. Throws deq::Error of real values.
  at::Tensor log_probabilities(const at::Tensor& z) const;

  /// Of a model that reads series: the values it answers, (B, T, columns, n), and which quantiles
  /// they are (none: n is 1). Throws deq::Error of any other.
  at::Tensor values(const at::Tensor& z) const;
  std::vector<int64_t> percents() const;
  bool answers_values() const { return value_head_ != nullptr; }

  /// Of the state of such tokens (B, T) or (B, H, W): a row that is read as one place has one.
  std::vector<int64_t> state_shape(const at::Tensor& tokens) const;
  /// The rule by which evaluations end a problem's solve: that of its options, or what came after.
  const Halting& halting() const { return halting_; }
  /// Another threshold, or another rule. Throws deq::Error for one whose unit the model has not.
  void halt_by(const Halting& halting);
  /// Of its halting unit, (B) given states (B, ..., D). The model's rule is learned.
  at::Tensor halting_logits(const at::Tensor& z) const;
  /// What a rule may ask of this model, which must live as long.
  Readout readout() const;

  const ModelOptions& options() const { return options_; }
  bool is_explicit() const { return options_.is_explicit(); }
  Cell& cell() { return layer_->cell(); }
  const Cell& cell() const { return layer_->cell(); }
  /// Throws deq::Error where the model reads otherwise: places and symbols (Cell::symbols).
  AdaptiveEmbedding& embedding();
  const Vocabularies& symbols() const { return symbols_; }
  /// Where its weights are, and hence what it returns.
  c10::Device device() const { return parameters().front().device(); }
  /// All, or all but those of embedding and softmax.
  int64_t parameter_count(bool with_embedding) const;

  /// How all of its cells read their weights from now on (Cell::read_weights). Throws deq::Error
  /// for Bfloat16 where they cannot.
  void read_weights(const ReadingOptions& options);
  WeightType weight_type() const { return weight_type_; }

  /// What the layer sees of tokens: x (B, T, X); of grids (B, H, W, X), unless rows are read.
  at::Tensor read(const at::Tensor& tokens);

  /// The levels for these tokens, as `forward` applies them; for an equilibrium the one f(., x)
  /// that it solves.
  std::vector<Bound> bind(const at::Tensor& tokens, const Histories& histories);

 protected:
  /// Without weights of its own making: for `clone`.
  virtual std::shared_ptr<Model> another() const;

 private:
  void make_word_ends();
  void make_symbol_ends();
  void make_value_ends();
  void make_bit_ends();
  void make_series_ends();
  void make_ends();
  void make_halting();
  at::Tensor hidden(const at::Tensor& z) const;
  at::Tensor shared_loss(const at::Tensor& hidden, const at::Tensor& targets) const;
  bool reads_rows() const;
  int64_t row() const;
  int64_t ids(int64_t symbols) const;

  ModelOptions options_;
  Vocabularies symbols_;
  WeightType weight_type_ = WeightType::Exact;
  Halting halting_;
  std::unique_ptr<Layer> layer_;
  std::shared_ptr<Reader> reader_;
  std::shared_ptr<AdaptiveEmbedding> embedding_;  // the reader, where it is one
  std::unique_ptr<Head> head_;
  const ValueHead* value_head_ = nullptr;  // the head, where it is one
  std::shared_ptr<HaltingUnit> unit_;      // of a rule that is learned
};

}  // namespace deq
