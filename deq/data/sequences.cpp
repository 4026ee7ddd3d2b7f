#include "deq/data/sequences.h"

#include <algorithm>

#include "deq/base/error.h"
#include "deq/data/random.h"

namespace deq {
namespace {

/// The number of targets that are scored.
int64_t check_split(const Split& split) {
  const auto shape = [](const at::Tensor& tensor) {
    return tensor.defined() ? fmt::format("({}) {}", fmt::join(tensor.sizes(), ", "),
                                          c10::toString(tensor.scalar_type()))
                            : std::string("undefined");
  };
  const at::Tensor& tokens = split.tokens;
  const bool fits = tokens.defined() && tokens.dim() == 2 && tokens.numel() > 0 &&
                    tokens.scalar_type() == at::kLong && split.targets.defined() &&
                    split.targets.sizes() == tokens.sizes() &&
                    split.targets.scalar_type() == at::kLong;
  DEQ_CHECK(fits, "sequences are {}, their targets {}; expected (sequences, positions) int64 each",
            shape(tokens), shape(split.targets));
  DEQ_CHECK(split.answer >= 0 && split.answer <= tokens.size(1),
            "an answer of {} positions in sequences of {}; expected at most as many", split.answer,
            tokens.size(1));
  const at::Tensor scored = split.targets.ge(0).sum(1);  // (S,)
  const at::Tensor fewest = scored.argmin();
  DEQ_CHECK(scored[fewest.item<int64_t>()].item<int64_t>() > 0,
            "sequence {} has no target; expected at least one that is not -1",
            fewest.item<int64_t>());
  return scored.sum().item<int64_t>();
}

}  // namespace

SequenceStream::SequenceStream(Split split, int64_t batch, int64_t seed)
    : split_(std::move(split)), batch_(batch), seed_(seed) {
  check_split(split_);
  DEQ_CHECK(batch >= 1, "batch = {}; expected >= 1", batch);
  DEQ_CHECK(batch <= split_.tokens.size(0), "batch = {} of {} training sequences; expected <= {}",
            batch, split_.tokens.size(0), split_.tokens.size(0));
}

Segment SequenceStream::next() {
  if (shuffled_ != epoch()) {
    shuffled_ = epoch();
    order_ = at::tensor(permutation(split_.tokens.size(0), random_stream({seed_, shuffled_})),
                        at::kLong);
  }
  const int64_t index = position_++ % segments_per_epoch();
  const at::Tensor rows = order_.narrow(0, index * batch_, batch_);
  return {.tokens = split_.tokens.index_select(0, rows),
          .targets = split_.targets.index_select(0, rows),
          .reset = true,
          .answer = split_.answer};
}

void SequenceStream::seek(int64_t position) {
  DEQ_CHECK(position >= 0, "stream position = {}; expected >= 0", position);
  position_ = position;
}

SequenceEvaluationStream::SequenceEvaluationStream(Split split, int64_t batch)
    : split_(std::move(split)), batch_(batch), targets_(check_split(split_)) {
  DEQ_CHECK(batch >= 1, "batch = {}; expected >= 1", batch);
}

std::optional<Segment> SequenceEvaluationStream::next() {
  const int64_t rows = std::min(batch_, split_.tokens.size(0) - first_);
  if (rows <= 0) return std::nullopt;
  Segment segment{.tokens = split_.tokens.narrow(0, first_, rows).clone(),
                  .targets = split_.targets.narrow(0, first_, rows).clone(),
                  .first_lane = first_,
                  .reset = true,
                  .answer = split_.answer};
  first_ += rows;
  return segment;
}

}  // namespace deq
