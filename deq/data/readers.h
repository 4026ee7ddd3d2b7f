// What reads a split, whichever kind it is: segments of a text, or batches of sequences.
#pragma once

#include <variant>

#include "deq/data/sequences.h"

namespace deq {

/// How training cuts a split; sequences are never cut, and only texts keep their order.
struct TrainingCut {
  int64_t batch = 1;   ///< lanes of a text, or sequences
  int64_t length = 1;  ///< positions of a text's segment
  int64_t seed = 1;    ///< of the order of sequences, and of restarts
  double restart = 0;  ///< share of a text's lanes that begin anew at each segment
};

/// Segments for training without end: a split that ends begins again.
class TrainingReader {
 public:
  /// Of a corpus's training split, which its `draw` makes anew for each epoch.
  TrainingReader(const Corpus& corpus, const TrainingCut& cut)
      : stream_(make(corpus.train, cut, corpus.draw)) {}
  TrainingReader(const Split& split, const TrainingCut& cut) : stream_(make(split, cut, {})) {}

  Batch next() {
    return std::visit([](auto& stream) { return stream.next(); }, stream_);
  }
  int64_t position() const {
    return std::visit([](const auto& stream) { return stream.position(); }, stream_);
  }
  void seek(int64_t position) {
    std::visit([&](auto& stream) { stream.seek(position); }, stream_);
  }
  int64_t tokens_per_segment() const {
    return std::visit([](const auto& stream) { return stream.tokens_per_segment(); }, stream_);
  }

 private:
  using Stream = std::variant<SegmentStream, SequenceStream>;
  static Stream make(const Split& split, const TrainingCut& cut, const DrawSplit& draw) {
    if (!split.sequences())
      return SegmentStream(split.tokens, cut.batch, cut.length, {cut.restart, cut.seed});
    DEQ_CHECK(cut.restart == 0, "restart = {}: every sequence begins anew; expected 0",
              cut.restart);
    return SequenceStream(split, cut.batch, cut.seed, draw);
  }

  Stream stream_;
};

/// How evaluation cuts a split; of sequences only `batch` matters.
struct EvaluationCut {
  int64_t lanes = 1, batch = 1, length = 1;
};

/// Every scored target of a split exactly once.
class EvaluationReader {
 public:
  EvaluationReader(const Split& split, const EvaluationCut& cut) : stream_(make(split, cut)) {}

  std::optional<Batch> next() {
    return std::visit([](auto& stream) { return stream.next(); }, stream_);
  }
  int64_t targets() const {
    return std::visit([](const auto& stream) { return stream.targets(); }, stream_);
  }

 private:
  using Stream = std::variant<EvaluationStream, SequenceEvaluationStream>;
  static Stream make(const Split& split, const EvaluationCut& cut) {
    if (split.sequences()) return SequenceEvaluationStream(split, cut.batch);
    return EvaluationStream(split.tokens, cut.lanes, cut.batch, cut.length);
  }

  Stream stream_;
};

}  // namespace deq
