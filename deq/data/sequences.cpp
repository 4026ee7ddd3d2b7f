#include "deq/data/sequences.h"

#include <algorithm>
#include <map>

#include "deq/base/error.h"
#include "deq/data/random.h"

namespace deq {
namespace {

std::string shape_of(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format("({}) {}", fmt::join(tensor.sizes(), ", "),
                                        c10::toString(tensor.scalar_type()))
                          : std::string("undefined");
}

void check_extents(const Split& split) {
  if (!split.extents.defined()) return;
  const at::Tensor& tokens = split.tokens;
  const at::Tensor extents = split.extents;  // (S, dimensions)
  DEQ_CHECK(extents.scalar_type() == at::kLong &&
                extents.sizes() == at::IntArrayRef({tokens.size(0), tokens.dim() - 1}),
            "extents of problems are {}; expected ({}, {}) Long", shape_of(extents), tokens.size(0),
            tokens.dim() - 1);
  for (int64_t d = 1; d < tokens.dim(); ++d) {
    const at::Tensor extent = extents.select(1, d - 1);
    const int64_t least = extent.min().item<int64_t>(), most = extent.max().item<int64_t>();
    DEQ_CHECK(least >= 1 && most <= tokens.size(d),
              "extents of problems are {} to {}; expected 1 to {}", least, most, tokens.size(d));
  }
}

/// The number of targets that are scored.
int64_t check_split(const Split& split) {
  const at::Tensor& tokens = split.tokens;
  const auto is_long_or = [](const at::Tensor& ids, at::ScalarType small) {
    return ids.scalar_type() == at::kLong || ids.scalar_type() == small;
  };
  const bool fits = tokens.defined() && (tokens.dim() == 2 || tokens.dim() == 3) &&
                    tokens.numel() > 0 && is_long_or(tokens, at::kByte) &&
                    split.targets.defined() && split.targets.sizes() == tokens.sizes() &&
                    is_long_or(split.targets, at::kChar);
  DEQ_CHECK(fits,
            "sequences are {}, their targets {}; expected (sequences, positions) int64 each, or "
            "grids",
            shape_of(tokens), shape_of(split.targets));
  DEQ_CHECK(split.answer >= kEveryPosition && split.answer <= tokens.size(1),
            "an answer of {} positions in sequences of {}; expected at most as many", split.answer,
            tokens.size(1));
  check_extents(split);
  const at::Tensor scored = split.targets.flatten(1).ge(0).sum(1);  // (S,)
  const at::Tensor fewest = scored.argmin();
  DEQ_CHECK(scored[fewest.item<int64_t>()].item<int64_t>() > 0,
            "sequence {} has no target; expected at least one that is not -1",
            fewest.item<int64_t>());
  return scored.sum().item<int64_t>();
}

/// The extent of one problem; empty where all fill their rows.
std::vector<int64_t> extent_of(const Split& split, int64_t problem) {
  if (!split.extents.defined()) return {};
  const at::Tensor extent = split.extents[problem].contiguous();
  const auto* first = extent.data_ptr<int64_t>();
  return {first, first + extent.numel()};
}

/// These rows, which are of one extent, in memory of their own.
Batch batch_of(const Split& split, const at::Tensor& rows) {
  const std::vector<int64_t> extent = extent_of(split, rows[0].item<int64_t>());
  const auto part = [&](const at::Tensor& all) {
    at::Tensor rows_of_all = all.index_select(0, rows);
    for (size_t d = 0; d < extent.size(); ++d)
      rows_of_all = rows_of_all.narrow(int64_t(d) + 1, 0, extent[d]);
    return rows_of_all.to(at::kLong).contiguous();
  };
  const at::Tensor numbers = rows.contiguous();
  const auto* first = numbers.data_ptr<int64_t>();
  return {.tokens = part(split.tokens),
          .targets = part(split.targets),
          .reset = true,
          .answer = split.answer,
          .problems = {first, first + numbers.numel()}};
}

/// Problems by their extent, in order.
std::map<std::vector<int64_t>, std::vector<int64_t>> by_extent(const Split& split) {
  std::map<std::vector<int64_t>, std::vector<int64_t>> groups;
  for (int64_t s = 0; s < split.tokens.size(0); ++s) groups[extent_of(split, s)].push_back(s);
  return groups;
}

int64_t batches_of(const Split& split, int64_t batch) {
  if (!split.extents.defined()) return split.tokens.size(0) / batch;
  int64_t count = 0;
  for (const auto& [extent, rows] : by_extent(split))
    count += (int64_t(rows.size()) + batch - 1) / batch;
  return count;
}

}  // namespace

SequenceStream::SequenceStream(Split split, int64_t batch, int64_t seed, DrawSplit draw)
    : split_(std::move(split)), batch_(batch), seed_(seed), draw_(std::move(draw)) {
  check_split(split_);
  DEQ_CHECK(batch >= 1, "batch = {}; expected >= 1", batch);
  DEQ_CHECK(batch <= split_.tokens.size(0), "batch = {} of {} training sequences; expected <= {}",
            batch, split_.tokens.size(0), split_.tokens.size(0));
  per_epoch_ = batches_of(split_, batch);
}

void SequenceStream::shuffle(int64_t epoch) {
  if (draw_) {
    split_ = draw_(epoch);
    check_split(split_);
    DEQ_CHECK(batches_of(split_, batch_) == per_epoch_,
              "epoch {} has {} batches of problems; expected {}, as the first", epoch,
              batches_of(split_, batch_), per_epoch_);
  }
  shuffled_ = epoch;
  rows_.clear();
  if (!split_.extents.defined()) {
    const at::Tensor order =
        at::tensor(permutation(split_.tokens.size(0), random_stream({seed_, epoch})), at::kLong);
    for (int64_t i = 0; i < per_epoch_; ++i) rows_.push_back(order.narrow(0, i * batch_, batch_));
    return;
  }
  std::vector<at::Tensor> batches;
  int64_t group = 0;
  for (const auto& [extent, members] : by_extent(split_)) {
    const auto count = int64_t(members.size());
    const at::Tensor order =
        at::tensor(members, at::kLong)
            .index_select(0, at::tensor(permutation(count, random_stream({seed_, epoch, group++})),
                                        at::kLong));
    for (int64_t first = 0; first < count; first += batch_)
      batches.push_back(order.narrow(0, first, std::min(batch_, count - first)));
  }
  for (const int64_t i : permutation(int64_t(batches.size()), random_stream({seed_, epoch, -1})))
    rows_.push_back(batches[size_t(i)]);
}

Batch SequenceStream::next() {
  if (shuffled_ != epoch()) shuffle(epoch());
  return batch_of(split_, rows_[size_t(position_++ % per_epoch_)]);
}

void SequenceStream::seek(int64_t position) {
  DEQ_CHECK(position >= 0, "stream position = {}; expected >= 0", position);
  position_ = position;
}

SequenceEvaluationStream::SequenceEvaluationStream(Split split, int64_t batch)
    : split_(std::move(split)), batch_(batch), targets_(check_split(split_)) {
  DEQ_CHECK(batch >= 1, "batch = {}; expected >= 1", batch);
}

std::optional<Batch> SequenceEvaluationStream::next() {
  const int64_t all = split_.tokens.size(0);
  if (first_ >= all) return std::nullopt;
  int64_t end = first_ + 1;
  const auto extent = extent_of(split_, first_);
  while (end < std::min(all, first_ + batch_) && extent_of(split_, end) == extent) ++end;
  Batch batch = batch_of(split_, at::arange(first_, end, at::kLong));
  batch.first_lane = first_;
  first_ = end;
  return batch;
}

}  // namespace deq
