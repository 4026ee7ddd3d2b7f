#include "deq/heads/adaptive.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "deq/cells/dropout.h"
#include "deq/ops/affine.h"
#include "deq/ops/unpacked.h"

namespace deq {

using at::Tensor;

Clusters::Clusters(const EmbeddingOptions& options, int64_t vocabulary, int64_t model_width)
    : vocabulary(vocabulary),
      model_width(model_width),
      table_width(options.width > 0 ? options.width : model_width),
      div_val(options.div_val),
      ends(options.cutoffs) {
  validate(options, "Embedding");
  ends.push_back(vocabulary);
  for (size_t i = 0; i < ends.size(); ++i) {
    DEQ_CHECK(ends[i] > begin(i),
              "embedding-cutoffs = {}; expected rising numbers between 0 and the {} tokens",
              fmt::join(options.cutoffs, ","), vocabulary);
    DEQ_CHECK(width(i) >= 1,
              "embedding-div-val = {}: cluster {} of width {} / {}^{} has none left; expected >= 1",
              div_val, i, table_width, div_val, i);
  }
  DEQ_CHECK(
      options.tied_projections.empty() || projected(),
      "embedding-tied-projections = {}: nothing is projected from tables as wide as the cell; "
      "expected none, or another embedding-width or embedding-div-val",
      fmt::join(options.tied_projections, ","));
  for (const int64_t i : options.tied_projections) {
    DEQ_CHECK(i >= 0 && i < int64_t(count()),
              "embedding-tied-projections = {}; expected clusters 0 to {}",
              fmt::join(options.tied_projections, ","), count() - 1);
  }
}

int64_t Clusters::width(size_t i) const {
  int64_t width = table_width;
  for (size_t k = 0; k < i; ++k) width /= div_val;
  return width;
}

AdaptiveEmbedding::AdaptiveEmbedding(const Clusters& clusters, const EmbeddingOptions& options)
    : clusters_(clusters), scaled_(options.scaled), dropout_(options.dropout) {
  const size_t tables = clusters.one_table() ? 1 : clusters.count();
  for (size_t i = 0; i < tables; ++i) {
    const int64_t rows = clusters.one_table() ? clusters.vocabulary : clusters.size(i);
    tables_.push_back(
        register_parameter("table" + std::to_string(i), torch::zeros({rows, clusters.width(i)})));
    if (!clusters.projected()) continue;
    projections_.push_back(register_parameter(
        "projection" + std::to_string(i), torch::zeros({clusters.model_width, clusters.width(i)})));
  }
}

void AdaptiveEmbedding::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  for (const Tensor& table : tables_) table.normal_(0, std);
  for (const Tensor& projection : projections_)
    projection.normal_(0, 1 / std::sqrt(double(projection.size(1))));
}

Tensor AdaptiveEmbedding::forward(const Tensor& tokens) const {
  Tensor x = look_up(tokens);
  if (scaled_) x = x * std::sqrt(double(clusters_.model_width));
  const Tensor kept =
      dropout_mask({clusters_.vocabulary}, dropout_, is_training(), tables_[0].detach());
  return kept.defined() ? x * kept.index({tokens}).unsqueeze(2) : x;
}

/// (B, T, model width), as the tables have them.
Tensor AdaptiveEmbedding::look_up(const Tensor& tokens) const {
  if (clusters_.one_table()) {
    const Tensor embedded = at::embedding(tables_[0], tokens, held_row_);  // (B, T, E)
    return clusters_.projected() ? ops::affine(embedded, ops::affine_weight(projections_[0]), {})
                                 : embedded;
  }
  const Tensor flat = tokens.reshape({-1});
  Tensor out = at::zeros({flat.size(0), clusters_.model_width}, tables_[0].options());
  for (size_t i = 0; i < tables_.size(); ++i) {
    const Tensor members =
        (flat >= clusters_.begin(i)).logical_and_(flat < clusters_.ends[i]).nonzero().squeeze(1);
    if (members.numel() == 0) continue;
    const Tensor embedded =
        at::embedding(tables_[i], flat.index_select(0, members) - clusters_.begin(i));
    const Tensor projected =
        ops::affine(embedded.unsqueeze(0), ops::affine_weight(projections_[i]), {});
    out = out.index_copy(0, members, projected.squeeze(0));
  }
  return out.view({tokens.size(0), tokens.size(1), clusters_.model_width});
}

AdaptiveSoftmax::AdaptiveSoftmax(const Clusters& clusters, const EmbeddingOptions& options,
                                 const AdaptiveEmbedding& embedding)
    : clusters_(clusters) {
  const int64_t own_width = clusters.model_width, tied_width = embedding.clusters().model_width;
  DEQ_CHECK(own_width == tied_width || (!options.tie_weights && options.tied_projections.empty()),
            "embedding-tie-weights: the softmax reads states of width {}, the embedding gives {}; "
            "expected one width, or nothing tied",
            own_width, tied_width);
  for (size_t i = 0; i < embedding.tables().size(); ++i) {
    const int64_t rows = clusters.one_table() ? clusters.vocabulary : clusters.size(i);
    const std::string n = std::to_string(i);
    own_table_.push_back(!options.tie_weights);
    tables_.push_back(
        options.tie_weights
            ? embedding.tables()[i]
            : register_parameter("table" + n, torch::zeros({rows, clusters.width(i)})));
    biases_.push_back(register_parameter("bias" + n, torch::zeros({rows})));
  }
  for (size_t i = 0; clusters.projected() && i < clusters.count(); ++i) {
    const auto& tied = options.tied_projections;
    const bool own = std::find(tied.begin(), tied.end(), int64_t(i)) == tied.end();
    own_projection_.push_back(own);
    projections_.push_back(
        own ? register_parameter("projection" + std::to_string(i),
                                 torch::zeros({clusters.model_width, clusters.width(i)}))
            : embedding.projections()[clusters.one_table() ? 0 : i]);
  }
  if (clusters.count() > 1) {
    const int64_t tails = int64_t(clusters.count()) - 1;
    cluster_weight_ =
        register_parameter("cluster_weight", torch::zeros({tails, clusters.table_width}));
    cluster_bias_ = register_parameter("cluster_bias", torch::zeros({tails}));
  }
}

void AdaptiveSoftmax::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  for (size_t i = 0; i < tables_.size(); ++i) {
    if (own_table_[i]) tables_[i].normal_(0, std);
    biases_[i].zero_();
  }
  for (size_t i = 0; i < projections_.size(); ++i) {
    if (own_projection_[i])
      projections_[i].normal_(0, 1 / std::sqrt(double(projections_[i].size(1))));
  }
  if (cluster_weight_.defined()) {
    cluster_weight_.normal_(0, std);
    cluster_bias_.zero_();
  }
}

Tensor AdaptiveSoftmax::table(size_t i) const {
  const Tensor rows = clusters_.one_table()
                          ? tables_[0].narrow(0, clusters_.begin(i), clusters_.size(i))
                          : tables_[i];
  return i == 0 && cluster_weight_.defined() ? at::cat({rows, cluster_weight_}) : rows;
}

Tensor AdaptiveSoftmax::bias(size_t i) const {
  const Tensor rows = clusters_.one_table()
                          ? biases_[0].narrow(0, clusters_.begin(i), clusters_.size(i))
                          : biases_[i];
  return i == 0 && cluster_bias_.defined() ? at::cat({rows, cluster_bias_}) : rows;
}

Tensor AdaptiveSoftmax::projected(size_t i, const Tensor& hidden) const {
  if (projections_.empty()) return hidden;
  return ops::affine(hidden.unsqueeze(0), ops::affine_weight(projections_[i].t()), {}).squeeze(0);
}

Tensor AdaptiveSoftmax::logits(size_t i, const Tensor& hidden) const {
  return ops::unpacked_affine(projected(i, hidden), table(i), bias(i));
}

Tensor AdaptiveSoftmax::loss(const Tensor& hidden, const Tensor& targets, ops::LossUse use) const {
  const Tensor head = table(0);
  // In the head a token of a tail stands for its cluster.
  Tensor in_head = targets;
  for (size_t i = 1; i < clusters_.count(); ++i)
    in_head = in_head.masked_fill(members_of(i, targets), head.size(0) - int64_t(i));
  Tensor out = ops::softmax_loss(projected(0, hidden), head, bias(0), in_head, use);
  for (size_t i = 1; i < clusters_.count(); ++i) {
    const Tensor members = members_of(i, targets).nonzero().squeeze(1);
    if (members.numel() == 0) continue;
    const Tensor index = targets.index_select(0, members) - clusters_.begin(i);
    const Tensor states = projected(i, hidden.index_select(0, members));
    out = out.index_add(0, members, ops::softmax_loss(states, table(i), bias(i), index, use));
  }
  return out;
}

/// Which targets cluster i holds.
Tensor AdaptiveSoftmax::members_of(size_t i, const Tensor& targets) const {
  return (targets >= clusters_.begin(i)).logical_and_(targets < clusters_.ends[i]);
}

Tensor AdaptiveSoftmax::log_probabilities(const Tensor& hidden) const {
  const Tensor head = at::log_softmax(logits(0, hidden), 1);
  std::vector<Tensor> parts{head.narrow(1, 0, clusters_.size(0))};
  for (size_t i = 1; i < clusters_.count(); ++i) {
    const Tensor symbol = head.select(1, head.size(1) - int64_t(i)).unsqueeze(1);
    parts.push_back(symbol + at::log_softmax(logits(i, hidden), 1));
  }
  return at::cat(parts, 1);
}

}  // namespace deq
