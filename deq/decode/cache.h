#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "deq/models/language_model.h"

namespace deq {

/// The equilibrium cache: what decoding keeps of texts, so that no earlier equilibrium is solved,
/// or its keys and values computed, again. Its size does not depend on the solver.
struct EquilibriumCache {
  Histories histories;           ///< one for each level, of B texts
  at::Tensor log_probabilities;  ///< (B, V) of each text's next token; undefined: nothing was fed
};

/// Several caches of one text each as one, whatever the lengths of their histories: the shorter
/// ones begin with positions that are hidden.
EquilibriumCache join(const std::vector<EquilibriumCache>& texts);

/// One cache for each text, without what is hidden.
std::vector<EquilibriumCache> split(const EquilibriumCache& cache);

/// The cache with all its tensors on a device.
EquilibriumCache on_device(EquilibriumCache cache, c10::Device device);

/// Of all weights and how they are read: a cache is worth nothing with others.
std::string weights_fingerprint(const LanguageModel& model);

/// Writes atomically, a safetensors file; docs/checkpoint.md has its names.
void save_cache(const std::filesystem::path& path, const EquilibriumCache& cache,
                const std::string& weights);

/// Throws deq::Error for a file that is missing, damaged, no cache, or of other weights.
EquilibriumCache load_cache(const std::filesystem::path& path, const std::string& weights);

}  // namespace deq
