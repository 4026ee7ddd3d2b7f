#include "deq/data/stream.h"

#include <algorithm>

#include "deq/base/error.h"

namespace deq {
namespace {

void check_tokens(const at::Tensor& tokens) {
  DEQ_CHECK(tokens.defined() && tokens.dim() == 1 && tokens.scalar_type() == at::kLong,
            "a stream of tokens is {}; expected (tokens,) int64",
            tokens.defined() ? fmt::format("({}) {}", fmt::join(tokens.sizes(), ", "),
                                           c10::toString(tokens.scalar_type()))
                             : "undefined");
}

void check_positive(const char* name, int64_t value) {
  DEQ_CHECK(value >= 1, "{} = {}; expected >= 1", name, value);
}

/// `rows` rows of `columns` tokens, each `stride` tokens after the one before, in memory of its
/// own.
at::Tensor window(const at::Tensor& tokens, int64_t start, int64_t rows, int64_t columns,
                  int64_t stride) {
  const at::Tensor view =
      tokens.as_strided({rows, columns}, {stride * tokens.stride(0), tokens.stride(0)},
                        tokens.storage_offset() + start * tokens.stride(0));
  return view.clone(at::MemoryFormat::Contiguous);
}

}  // namespace

SegmentStream::SegmentStream(at::Tensor tokens, int64_t lanes, int64_t length)
    : tokens_(std::move(tokens)), lanes_(lanes), length_(length) {
  check_tokens(tokens_);
  check_positive("lanes", lanes);
  check_positive("length", length);
  lane_length_ = std::max<int64_t>(tokens_.size(0) - 1, 0) / lanes;
  DEQ_CHECK(
      lane_length_ >= length,
      "{} tokens in {} lanes are {} targets each; a segment of {} needs at least {:.0f} tokens",
      tokens_.size(0), lanes, lane_length_, length, double(lanes) * double(length) + 1);
}

Segment SegmentStream::next() {
  const int64_t index = position_++ % segments_per_epoch();
  const int64_t start = index * length_;
  return {.tokens = window(tokens_, start, lanes_, length_, lane_length_),
          .targets = window(tokens_, start + 1, lanes_, length_, lane_length_),
          .reset = index == 0};
}

void SegmentStream::seek(int64_t position) {
  DEQ_CHECK(position >= 0, "stream position = {}; expected >= 0", position);
  position_ = position;
}

EvaluationStream::EvaluationStream(at::Tensor tokens, int64_t lanes, int64_t batch, int64_t length)
    : tokens_(std::move(tokens)), lanes_(lanes), batch_(batch), length_(length) {
  check_tokens(tokens_);
  check_positive("lanes", lanes);
  check_positive("batch", batch);
  check_positive("length", length);
  DEQ_CHECK(tokens_.size(0) > lanes, "{} tokens in {} lanes; expected at least {}: a target each",
            tokens_.size(0), lanes, lanes + 1);
}

// The first `targets() % lanes` lanes are one longer than the others.
int64_t EvaluationStream::lane_length(int64_t lane) const {
  return targets() / lanes_ + (lane < targets() % lanes_ ? 1 : 0);
}

int64_t EvaluationStream::lane_start(int64_t lane) const {
  return lane * (targets() / lanes_) + std::min(lane, targets() % lanes_);
}

std::optional<Segment> EvaluationStream::next() {
  if (lane_ >= lanes_) return std::nullopt;
  // A batch holds lanes of one length only, so that its segments are rectangles.
  const int64_t longer = targets() % lanes_;
  const int64_t alike = (lane_ < longer ? longer : lanes_) - lane_;
  const int64_t rows = std::min(batch_, alike);
  const int64_t stride = lane_length(lane_);
  const int64_t columns = std::min(length_, stride - offset_);
  const int64_t start = lane_start(lane_) + offset_;
  Segment segment{.tokens = window(tokens_, start, rows, columns, stride),
                  .targets = window(tokens_, start + 1, rows, columns, stride),
                  .first_lane = lane_,
                  .reset = offset_ == 0};
  offset_ += columns;
  if (offset_ == stride) {
    lane_ += rows;
    offset_ = 0;
  }
  return segment;
}

}  // namespace deq
