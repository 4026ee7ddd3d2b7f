// A run is a folder: config.toml, vocab.txt (answers.txt where these have another vocabulary),
// metrics.jsonl, last.safetensors, best.safetensors, lock. Killed at any moment it goes on from
// last.safetensors to the same bits.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>

#include "deq/train/trainer.h"

namespace deq {

/// What a run tells whoever watches it.
struct RunObserver {
  std::function<void(const Trainer&, bool resumed)> started;
  /// After each step; tokens per second lately, and seconds left at this pace.
  std::function<void(const StepReport&, double tokens_per_second, double seconds_left)> stepped;
  std::function<void(double share)> evaluating;
  std::function<void(int64_t step, const Evaluation&, bool best)> evaluated;
};

/// How a run ended.
struct RunResult {
  int64_t steps = 0;
  double seconds = 0;  ///< of training, that before a resume included
  std::string why;  ///< "steps done", "minutes over", "no better for N evaluations", "interrupted"
  double best_loss = 0;            ///< on the validation split, nats
  std::optional<Evaluation> test;  ///< of the best weights; absent when interrupted
};

/// Trains in `folder`, which must hold nothing of a run unless `resume`. `interrupt` is looked at
/// between steps: when set, a checkpoint is written and the call returns. Throws deq::Error for a
/// folder in use, with a run or (`resume`) with imported weights alone, data or a vocabulary that
/// does not fit the checkpoint, and a disk that is full: what was saved before stays.
///
/// Of several processes each calls it with the same options; only rank 0 has the folder and hears
/// what there is to observe. Where one fails all throw; when one is interrupted all are.
RunResult run_training(const TrainOptions& options, const std::filesystem::path& folder,
                       bool resume, const RunObserver& observer, const std::atomic<bool>& interrupt,
                       std::shared_ptr<ProcessGroup> group = alone());

/// The options a run was made with.
TrainOptions read_run_options(const std::filesystem::path& folder);

/// A trained model as `deq eval` and `deq generate` use it: the best weights, or the last where
/// there are no best.
struct TrainedModel {
  TrainOptions options;
  Vocabulary vocabulary;
  Vocabulary answers;  ///< the same where its task has but one
  std::shared_ptr<Model> model;
  std::string weights;  ///< which: "best" or "last"
  std::string folder;   ///< where it was read from
};
/// `checkpoint` is "best", "last" or "" (best if there is one). Throws deq::Error naming what is
/// missing. The model is put on `device` (see device.h), wherever it was trained.
TrainedModel load_run(const std::filesystem::path& folder, const std::string& checkpoint = "",
                      const std::string& device = "cpu");

/// Puts other options of its task in place of the run's. Where these have other vocabularies, as of
/// boards of another size, its weights go on in a model of these. Throws deq::Error for another
/// task, and where the weights do not fit.
void set_task(TrainedModel& run, const Task& task);

/// A run's data, or other data of its task, in its vocabularies.
Corpus load_corpus(const TrainedModel& run, const std::string& data = "");

/// Throws deq::Error, naming the run, where it is an explicit network.
void check_equilibrium(const TrainedModel& run);

}  // namespace deq
