// The published code's parameter names (locuslab/deq, DEQ-Transformer), for weights that come from
// there.
#pragma once

#include <map>
#include <string>

#include "deq/models/language_model.h"

namespace deq {

/// The model that a published configuration describes: a JSON object with d_model, n_head, d_head,
/// d_inner, d_embed, div_val, cutoffs, pre_norm, weight_norm, local_size (0: 1000, as there),
/// tie_weights, tie_projections.
ModelOptions published_options(const std::string& config_json);

/// Published name -> ours, for every parameter the model has; where the model ties what the
/// published code keeps apart, several published names map to one of ours.
/// "word_emb.emb_layers.0.weight" -> "embedding.table0".
std::map<std::string, std::string> published_names(const LanguageModel& model);

/// Copies `weights` (published names, without a prefix) into the model, in its own type. Shapes may
/// have trailing ones (1 x 1 convolutions). Throws deq::Error for a tensor that is missing, unknown
/// or does not fit.
void load_published(LanguageModel& model, const std::map<std::string, at::Tensor>& weights);

}  // namespace deq
