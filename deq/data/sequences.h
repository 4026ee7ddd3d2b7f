// Sequences that stand alone, as batches: shuffled for training, each exactly once for evaluation.
#pragma once

#include <optional>
#include <vector>

#include "deq/data/corpus.h"
#include "deq/data/stream.h"

namespace deq {

/// For training: in every epoch a new permutation of the sequences, in segments of `batch` of them.
/// The permutation is a function of (seed, epoch) alone. What is left at the end of an epoch, fewer
/// than `batch` sequences, is dropped: segments keep one shape.
class SequenceStream {
 public:
  /// `split` is of sequences and is not copied. Throws deq::Error for fewer than `batch` sequences,
  /// and for one without a target that is scored.
  SequenceStream(Split split, int64_t batch, int64_t seed);

  Segment next();

  /// Segments given since the first epoch began; a stream of the same arguments that seeks there
  /// goes on with the same segments.
  int64_t position() const { return position_; }
  void seek(int64_t position);
  int64_t segments_per_epoch() const { return split_.tokens.size(0) / batch_; }
  int64_t epoch() const { return position_ / segments_per_epoch(); }  ///< of the next segment
  int64_t tokens_per_segment() const { return batch_ * split_.tokens.size(1); }

 private:
  Split split_;
  int64_t batch_, seed_;
  int64_t position_ = 0;
  int64_t shuffled_ = -1;  // the epoch whose permutation `order_` is
  at::Tensor order_;       // (S,)
};

/// For evaluation: every sequence exactly once and in order, `batch` at a time, the last time
/// fewer.
class SequenceEvaluationStream {
 public:
  SequenceEvaluationStream(Split split, int64_t batch);

  /// Nothing after the last segment.
  std::optional<Segment> next();
  int64_t targets() const { return targets_; }  ///< that are scored

 private:
  Split split_;
  int64_t batch_;
  int64_t targets_;
  int64_t first_ = 0;  // sequence of the next segment
};

}  // namespace deq
