#include "deq/data/stream.h"

#include <algorithm>

#include "deq/base/error.h"
#include "deq/data/random.h"

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

/// A segment with a row of `columns` tokens from each start, in memory of its own.
Batch segment_at(const at::Tensor& tokens, const std::vector<int64_t>& starts, int64_t columns) {
  std::vector<at::Tensor> rows, targets;
  for (const int64_t start : starts) {
    rows.push_back(tokens.narrow(0, start, columns));
    targets.push_back(tokens.narrow(0, start + 1, columns));
  }
  return {.tokens = at::stack(rows), .targets = at::stack(targets)};
}

}  // namespace

SegmentStream::SegmentStream(at::Tensor tokens, int64_t lanes, int64_t length, Restarts restarts)
    : tokens_(std::move(tokens)), lanes_(lanes), length_(length), restarts_(restarts) {
  check_tokens(tokens_);
  check_positive("lanes", lanes);
  check_positive("length", length);
  lane_length_ = std::max<int64_t>(tokens_.size(0) - 1, 0) / lanes;
  DEQ_CHECK(
      lane_length_ >= length,
      "{} tokens in {} lanes are {} targets each; a segment of {} needs at least {:.0f} tokens",
      tokens_.size(0), lanes, lane_length_, length, double(lanes) * double(length) + 1);
  DEQ_CHECK(restarts.share >= 0 && restarts.share <= 1, "share of restarts = {}; expected 0 to 1",
            restarts.share);
  behind_.assign(size_t(lanes), 0);
}

/// The lanes that begin anew at the next segment, gone back as far as they are to.
std::vector<int64_t> SegmentStream::begin_anew() {
  if (position_ % segments_per_epoch() == 0) behind_.assign(size_t(lanes_), 0);
  std::vector<int64_t> anew;
  if (restarts_.share == 0 || position_ % segments_per_epoch() == 0) return anew;
  std::mt19937_64 random = random_stream({restarts_.seed, position_, lanes_});
  for (int64_t lane = 0; lane < lanes_; ++lane) {
    if (uniform(random) >= restarts_.share) continue;
    behind_[size_t(lane)] = int64_t(random() % uint64_t(length_));
    anew.push_back(lane);
  }
  return anew;
}

Batch SegmentStream::next() {
  std::vector<int64_t> anew = begin_anew(), starts;
  const int64_t index = position_++ % segments_per_epoch();
  for (int64_t lane = 0; lane < lanes_; ++lane)
    starts.push_back(lane * lane_length_ + index * length_ - behind_[size_t(lane)]);
  Batch segment = segment_at(tokens_, starts, length_);
  segment.reset = index == 0;
  segment.anew = std::move(anew);
  return segment;
}

void SegmentStream::seek(int64_t position) {
  DEQ_CHECK(position >= 0, "stream position = {}; expected >= 0", position);
  position_ = position - position % segments_per_epoch();
  for (; position_ < position; ++position_) begin_anew();  // how far each lane is behind
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

std::optional<Batch> EvaluationStream::next() {
  if (lane_ >= lanes_) return std::nullopt;
  // A batch holds lanes of one length only, so that its segments are rectangles.
  const int64_t longer = targets() % lanes_;
  const int64_t alike = (lane_ < longer ? longer : lanes_) - lane_;
  const int64_t rows = std::min(batch_, alike);
  const int64_t stride = lane_length(lane_);
  const int64_t columns = std::min(length_, stride - offset_);
  std::vector<int64_t> starts;
  for (int64_t row = 0; row < rows; ++row) starts.push_back(lane_start(lane_ + row) + offset_);
  Batch segment = segment_at(tokens_, starts, columns);
  segment.first_lane = lane_;
  segment.reset = offset_ == 0;
  offset_ += columns;
  if (offset_ == stride) {
    lane_ += rows;
    offset_ = 0;
  }
  return segment;
}

}  // namespace deq
