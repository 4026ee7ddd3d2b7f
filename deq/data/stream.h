// A text as batches of segments: contiguous lanes for training, exact tiling for evaluation.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "deq/data/batch.h"

namespace deq {

/// How often a lane begins a text anew, without what stands before: so that a model meets
/// beginnings while it is trained.
struct Restarts {
  double share = 0;  ///< of the lanes, at each segment but the first of an epoch
  int64_t seed = 1;
};

/// For training: the tokens cut into `lanes` parts of equal length, read side by side in segments
/// of `length`, epoch after epoch. What is left at the end of a lane, fewer than `length` targets,
/// is not trained on: segments keep one shape.
///
/// A lane that begins anew goes back by 0 to length - 1 tokens first, and stays that far behind
/// until it does so again or the epoch ends: a beginning can thus be anywhere, not only where
/// segments are cut. Which lanes, and how far, is a function of the seed and the position.
class SegmentStream {
 public:
  /// `tokens` is (N,) int64 and is not copied.
  SegmentStream(at::Tensor tokens, int64_t lanes, int64_t length, Restarts restarts = {});

  Batch next();

  /// Segments given since the first epoch began; a stream of the same arguments that seeks there
  /// goes on with the same segments.
  int64_t position() const { return position_; }
  void seek(int64_t position);
  int64_t segments_per_epoch() const { return lane_length_ / length_; }
  int64_t tokens_per_segment() const { return lanes_ * length_; }
  int64_t epoch() const { return position_ / segments_per_epoch(); }  ///< of the next segment

 private:
  std::vector<int64_t> begin_anew();

  at::Tensor tokens_;
  int64_t lanes_, length_;
  Restarts restarts_;
  int64_t lane_length_;  // targets of a lane
  int64_t position_ = 0;
  std::vector<int64_t> behind_;  // tokens that each lane went back in this epoch
};

/// For evaluation: every token but the first is a target exactly once. The N - 1 targets are
/// divided into `lanes` parts whose lengths differ by one at most, and each lane is read in
/// segments of `length`, the last one shorter. Which history a target sees is thus set by `lanes`
/// and `length` alone; `batch` only says how many lanes are read side by side.
class EvaluationStream {
 public:
  EvaluationStream(at::Tensor tokens, int64_t lanes, int64_t batch, int64_t length);

  /// Nothing after the last segment.
  std::optional<Batch> next();
  int64_t targets() const { return tokens_.size(0) - 1; }

 private:
  int64_t lane_length(int64_t lane) const;
  int64_t lane_start(int64_t lane) const;

  at::Tensor tokens_;
  int64_t lanes_, batch_, length_;
  int64_t lane_ = 0;    // first of the batch
  int64_t offset_ = 0;  // into the lanes of the batch
};

}  // namespace deq
