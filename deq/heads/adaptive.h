// Adaptive embedding and adaptive softmax (Grave et al. 2017; Baevski and Auli 2019; as in
// Transformer-XL).
//
// Tokens are numbered by falling frequency and cut into clusters 0 .. n at `cutoffs`; cluster i has
// a table of width E / div_val^i and a projection to the model's width. The softmax's head is over
// cluster 0 and one symbol per tail cluster, the symbols in reverse order (tail i is column -i):
//   log p(w) = head[w]                                   w in cluster 0
//            = head[-i] + log softmax_i(w - cutoff_i)    w in cluster i
#pragma once

#include <torch/nn/module.h>

#include <vector>

#include "deq/base/fields.h"
#include "deq/heads/reader.h"
#include "deq/ops/softmax_loss.h"

namespace deq {

/// Tables of an embedding and its softmax: one, or one for each cluster.
struct EmbeddingOptions {
  int64_t width = 0;
  std::vector<int64_t> cutoffs;
  int64_t div_val = 1;
  bool tie_weights = true;
  std::vector<int64_t> tied_projections;
  bool scaled = true;
  double dropout = 0.0;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "width of the first cluster's table; 0: that of the cell",
          between(0, 1 << 20));
    field("cutoffs", self.cutoffs, "first token of each tail cluster; none: one cluster");
    field("div_val", self.div_val, "factor by which each cluster's table is narrower",
          between(1, 1 << 20));
    field("tie_weights", self.tie_weights, "softmax and embedding share their tables");
    field("tied_projections", self.tied_projections, "clusters whose projection is shared too");
    field("scaled", self.scaled, "multiply embeddings by the square root of the model's width");
    field("dropout", self.dropout, "share of the vocabulary dropped at a time", half_open(0, 1));
  }
};

/// The sizes that both modules agree on. Throws deq::Error for cutoffs that do not rise within (0,
/// vocabulary), tables without width, and tied projections of clusters that are not there.
struct Clusters {
  int64_t vocabulary = 0, model_width = 0, table_width = 0, div_val = 1;
  std::vector<int64_t> ends;  // exclusive, the last is the vocabulary

  Clusters(const EmbeddingOptions& options, int64_t vocabulary, int64_t model_width);
  size_t count() const { return ends.size(); }
  int64_t begin(size_t i) const { return i == 0 ? 0 : ends[i - 1]; }
  int64_t size(size_t i) const { return ends[i] - begin(i); }
  int64_t width(size_t i) const;  ///< of cluster i's table
  bool one_table() const { return div_val == 1; }
  bool projected() const { return div_val > 1 || table_width != model_width; }
};

/// Tokens (B, T) int64 -> (B, T, model width), times sqrt(model width) where `scaled`. In training
/// mode whole words are dropped (Gal and Ghahramani 2016).
class AdaptiveEmbedding : public Reader {
 public:
  AdaptiveEmbedding(const Clusters& clusters, const EmbeddingOptions& options);
  at::Tensor forward(const at::Tensor& tokens) const override;
  /// Tables ~ N(0, std); projections keep that scale, whatever a cluster's width.
  void initialise(double std) override;
  /// With one table: no gradient for the row of `token` from here (it may still have one from a
  /// tied softmax), as in the published TrellisNet code; -1: none.
  void hold_row(int64_t token) { held_row_ = token; }
  int64_t held_row() const { return held_row_; }
  const Clusters& clusters() const { return clusters_; }

  const std::vector<at::Tensor>& tables() const { return tables_; }  ///< (size, width) each
  const std::vector<at::Tensor>& projections() const {
    return projections_;
  }  ///< (model width, width) each

 private:
  at::Tensor look_up(const at::Tensor& tokens) const;

  Clusters clusters_;
  bool scaled_;
  double dropout_;
  int64_t held_row_ = -1;
  std::vector<at::Tensor> tables_, projections_;
};

/// Hidden states (N, model width) -> losses or log-probabilities of tokens, in nats, in the order
/// given.
class AdaptiveSoftmax : public torch::nn::Module {
 public:
  /// Shares what `options` ties with `embedding`; has parameters of its own for the rest, for
  /// hidden states as wide as `clusters` says. Throws deq::Error where what is tied has another
  /// width.
  AdaptiveSoftmax(const Clusters& clusters, const EmbeddingOptions& options,
                  const AdaptiveEmbedding& embedding);

  /// (N), -log p(target)
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets,
                  ops::LossUse use = ops::LossUse::Mean) const;
  at::Tensor log_probabilities(const at::Tensor& hidden) const;  ///< (N, vocabulary)
  void initialise(double std);  ///< what is not shared, as the embedding's; biases 0

 private:
  at::Tensor table(size_t cluster) const;
  at::Tensor bias(size_t cluster) const;
  at::Tensor projected(size_t cluster, const at::Tensor& hidden) const;
  at::Tensor logits(size_t cluster, const at::Tensor& hidden) const;
  at::Tensor members_of(size_t cluster, const at::Tensor& targets) const;

  Clusters clusters_;
  std::vector<at::Tensor> tables_, projections_, biases_;  // shared with the embedding where tied
  std::vector<bool> own_table_, own_projection_;
  at::Tensor cluster_weight_, cluster_bias_;
};

}  // namespace deq
