#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "deq/train/trainer.h"

namespace deq {

/// What every report of an evaluation holds, here and in `deq eval --json`; null for what is not
/// finite.
nlohmann::ordered_json json_of(const Evaluation& evaluation, const Task& task);

/// metrics.jsonl: one JSON object per line, never more than the checkpoint accounts for after a
/// resume. docs/checkpoint.md lists the fields.
class Metrics {
 public:
  explicit Metrics(std::filesystem::path path) : path_(std::move(path)) {}

  /// Drops lines after `step`, and a last one that was cut short. Throws deq::Error, with file and
  /// line, for a whole one that is no object with a step, and leaves the file as it is.
  void rewind(int64_t step);

  /// Throw deq::Error where the line cannot be appended.
  void step(const StepReport& report, double tokens_per_second, double seconds);
  /// In place of one of the same step and kind: the last evaluations of a run that was killed after
  /// them are made again when it is resumed.
  void evaluation(int64_t step, const char* kind, const Evaluation& evaluation, const Task& task,
                  double seconds);

 private:
  void keep(const std::function<bool(const nlohmann::ordered_json&)>& wanted);
  void append(const nlohmann::ordered_json& row);

  std::filesystem::path path_;
  int64_t rewound_to_ = -1;  // the only step of which evaluations may stand here already
};

}  // namespace deq
