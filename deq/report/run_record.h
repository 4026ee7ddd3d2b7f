#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "deq/train/options.h"

namespace deq {

/// One line of metrics.jsonl; docs/checkpoint.md lists the fields.
struct MetricsLine {
  std::string kind;  ///< "pretrain", "train", "valid" or "test"
  int64_t step = 0;
  double minutes = 0;  ///< of training until then; where a line has none those of the one before
  std::map<std::string, double> numbers;

  /// NaN where the line has no such number.
  double at(const std::string& field) const;
};

/// What a run folder tells of a run without loading the model: its configuration and metrics.jsonl.
struct RunRecord {
  std::string name;  ///< the folder as it was given
  TrainOptions options;
  Assignments configuration;  ///< config.toml, by key
  std::string metric;         ///< "perplexity", "bits per byte", ...
  std::string vocabulary;     ///< SHA-256 of vocab.txt; "": the run has none
  std::vector<MetricsLine> lines;

  const MetricsLine* best_validation() const;  ///< the lowest loss; null where there is none
  const MetricsLine* test() const;             ///< the latest; null where there is none
  const MetricsLine& latest() const { return lines.back(); }
};

/// A last line without its end, as a killed run leaves it, is left out. Throws deq::Error for a
/// folder that is no run, one without a step or evaluation yet, and a line that is no metrics.
RunRecord read_run(const std::filesystem::path& folder);

/// Throws deq::Error unless all runs report the same metric. Even so their numbers are only of the
/// same thing where they have one vocabulary.
void check_comparable(const std::vector<RunRecord>& runs);

}  // namespace deq
