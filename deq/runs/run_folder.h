// What a run's folder holds besides weights, and whether it fits the run.
#pragma once

#include <filesystem>
#include <limits>
#include <map>
#include <string>

#include "deq/files/safetensors.h"
#include "deq/train/trainer.h"

namespace deq {

/// What a checkpoint says about the run besides the trainer's state.
struct Progress {
  double seconds = 0;  ///< of training
  double best_loss = std::numeric_limits<double>::infinity();
  int64_t since_best = 0;     ///< evaluations
  int64_t evaluated_at = -1;  ///< the step
};

/// Makes the folder of a new run, or looks whether a run may be resumed there. Throws deq::Error
/// where it cannot be made, holds a run or what is left of one, or (`resume`) is missing or holds
/// imported weights alone.
void prepare_folder(const std::filesystem::path& folder, bool resume);

/// SHA-256 of a split's tokens, targets and extents.
std::string data_sum(const Split& split);

/// `train_data`: the data_sum of the training split.
std::map<std::string, std::string> checkpoint_metadata(const Trainer& trainer,
                                                       const TrainOptions::Loop& loop,
                                                       const std::string& train_data,
                                                       const Progress& progress);

/// The folder's last checkpoint; `progress` becomes what it says. Throws deq::Error where it is
/// damaged, or of other data, of another vocabulary, or of data that were cut otherwise.
TensorFile read_checkpoint(const std::filesystem::path& folder, const Trainer& trainer,
                           const TrainOptions::Loop& loop, const std::string& train_data,
                           Progress& progress);

/// Throws deq::Error, which names the option, where a model of other shapes than the checkpoint's
/// is to go on from it.
void check_shapes(const std::filesystem::path& folder, const TrainOptions& options,
                  const Trainer& trainer, const TensorFile& checkpoint);

}  // namespace deq
