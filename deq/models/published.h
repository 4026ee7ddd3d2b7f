// The published code's parameter names (locuslab/deq: DEQ-Transformer and DEQ-TrellisNet), for
// weights that come from there.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "deq/models/language_model.h"

namespace deq {

/// The model that a published configuration describes: a JSON object whose `kind` is
/// "deq-transformer" (d_model, n_head, d_head, d_inner, d_embed, div_val, cutoffs, pre_norm,
/// weight_norm, local_size (0: 1000, as there), tie_weights, tie_projections) or "deq-trellisnet"
/// (d_embed, n_hidden, n_out, kernel_size, dilation, weight_norm, tie_weights). Throws deq::Error
/// that names what is missing or does not fit.
ModelOptions published_options(const std::string& config_json);

/// A whole number of a published configuration, where it has that key. Throws deq::Error for a
/// value that is none.
std::optional<int64_t> published_number(const std::string& config_json, const std::string& key);

/// The number of tokens (`vocab`) of a published configuration.
int64_t published_vocabulary(const std::string& config_json);

/// Published name -> ours, for every parameter the model has; where the model ties what the
/// published code keeps apart, several published names map to one of ours.
/// "word_emb.emb_layers.0.weight" -> "embedding.table0".
std::map<std::string, std::string> published_names(const LanguageModel& model);

/// Copies `weights` (published names; "module." before them and copies of f are passed over) into
/// the model, in its own type. A
/// convolution's dimensions after the first may be folded into one. Throws deq::Error for a tensor
/// that is missing, unknown or does not fit.
void load_published(LanguageModel& model, const std::map<std::string, at::Tensor>& weights);

}  // namespace deq
