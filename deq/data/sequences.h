// Problems that stand alone, as batches: shuffled for training, each exactly once for evaluation.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "deq/data/corpus.h"
#include "deq/data/stream.h"

namespace deq {

/// The training split of an epoch, where each has its own.
using DrawSplit = std::function<Split(int64_t epoch)>;

/// For training: in every epoch a new permutation of the problems, `batch` of them at a time. The
/// permutation is a function of (seed, epoch) alone. What is left at the end of an epoch, fewer
/// than `batch` problems, is dropped. Problems of different extents never stand in one batch: of
/// each extent all are read, the last time fewer than `batch`, in an order that is drawn too.
class SequenceStream {
 public:
  /// `split` is of problems and is not copied; with `draw` it is that of epoch 0. Throws deq::Error
  /// for fewer than `batch` problems, and for one without a target that is scored; `next` does for
  /// an epoch's split that has not the extents of the first.
  SequenceStream(Split split, int64_t batch, int64_t seed, DrawSplit draw = {});

  Batch next();

  /// Segments given since the first epoch began; a stream of the same arguments that seeks there
  /// goes on with the same segments.
  int64_t position() const { return position_; }
  void seek(int64_t position);
  int64_t segments_per_epoch() const { return per_epoch_; }
  int64_t epoch() const { return position_ / segments_per_epoch(); }  ///< of the next segment
  int64_t tokens_per_segment() const { return batch_ * split_.tokens.size(1); }

 private:
  void shuffle(int64_t epoch);

  Split split_;  // of the epoch `shuffled_`, or else of epoch 0
  int64_t batch_, seed_;
  DrawSplit draw_;
  int64_t per_epoch_;
  int64_t position_ = 0;
  int64_t shuffled_ = -1;         // the epoch whose batches `rows_` are
  std::vector<at::Tensor> rows_;  // of each batch, (.,)
};

/// For evaluation: every problem exactly once and in order, `batch` at a time; fewer at the end,
/// and where a problem of another extent comes next.
class SequenceEvaluationStream {
 public:
  SequenceEvaluationStream(Split split, int64_t batch);

  /// Nothing after the last segment.
  std::optional<Batch> next();
  int64_t targets() const { return targets_; }  ///< that are scored

 private:
  Split split_;
  int64_t batch_;
  int64_t targets_;
  int64_t first_ = 0;  // problem of the next batch
};

}  // namespace deq
