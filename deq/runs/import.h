// Weights of the published code as a run folder.
#pragma once

#include <filesystem>
#include <string>

#include "deq/train/options.h"

namespace deq {

/// In which order a vocabulary that is made from a training split numbers its words.
enum class WordOrder { EndOfLineFirst, Frequency, Appearance };
template <>
struct Names<WordOrder> {
  static constexpr const char* values[] = {"eos-first", "frequency", "appearance"};
};

/// Where settings and vocabulary of published weights come from.
struct ImportOptions {
  std::string config;
  std::string vocabulary;
  std::string data;
  WordOrder order = WordOrder::EndOfLineFirst;

  static void fields(auto& self, auto&& field) {
    field("config", self.config,
          "JSON file with the published settings; none: the metadata key `config` of the weights");
    field("vocabulary", self.vocabulary,
          "file with one token a line, in the order of the published ids");
    field("data", self.data, "words whose training split the vocabulary is made from");
    field("order", self.order,
          "how that numbers them: <eos>, then by falling frequency (as the published code does for "
          "WikiText-103); all by frequency; by first appearance");
  }
};

/// Writes the run folder `folder` (absent or empty) for the weights in the safetensors file
/// `weights`: parameters by their published names, with the prefix "weight." or without. With no
/// vocabulary given, tokens are named by their numbers. Returns the options of the run. Throws
/// deq::Error for weights that are missing, unknown or misshapen, settings that are missing, and a
/// vocabulary of another size; then nothing is written.
TrainOptions import_published(const std::filesystem::path& weights,
                              const std::filesystem::path& folder, const ImportOptions& options);

}  // namespace deq
