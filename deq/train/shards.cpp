#include "deq/train/shards.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

Shards::Shards(int64_t count, std::shared_ptr<ProcessGroup> group)
    : count_(count), group_(std::move(group)) {
  const int64_t processes = group_->size();
  DEQ_CHECK(count >= 1 && count % processes == 0,
            "shards = {} with {} processes; expected a multiple of {}", count, processes,
            processes);
  const int64_t each = count / processes;
  for (int64_t k = 0; k < each; ++k) own_.push_back(group_->rank() * each + k);
}

Rows Shards::rows(int64_t shard, int64_t batch) const {
  const int64_t first = batch * shard / count_;
  return {first, batch * (shard + 1) / count_ - first};
}

Tensor Shards::part(const Tensor& all, int64_t shard) const {
  if (!several() || !all.defined()) return all;
  const Rows own = rows(shard, all.size(0));
  return all.narrow(0, own.first, own.count);
}

Batch Shards::part(const Batch& batch, int64_t shard) const {
  if (!several()) return batch;
  const Rows own = rows(shard, batch.tokens.size(0));
  Batch part = batch;
  part.tokens = this->part(batch.tokens, shard).contiguous();
  part.targets = this->part(batch.targets, shard).contiguous();
  part.first_lane += own.first;
  part.anew.clear();
  for (const int64_t row : batch.anew) {
    if (row >= own.first && row < own.first + own.count) part.anew.push_back(row - own.first);
  }
  return part;
}

namespace {

constexpr int64_t kLikeness = 8;  // numbers

/// What rows are like: a type, and the sizes behind the first. Of a part that has none, nothing.
Tensor likeness_of(const Tensor& part) {
  std::vector<int64_t> numbers(kLikeness, -1);
  if (!part.defined()) return at::tensor(numbers, at::kLong);
  numbers[0] = int64_t(part.scalar_type());
  for (int64_t d = 1; d < part.dim(); ++d) numbers[size_t(d)] = part.size(d);
  return at::tensor(numbers, at::kLong);
}

/// Room for so many rows of that likeness.
Tensor room_like(const Tensor& likeness, int64_t parts, int64_t rows) {
  std::vector<int64_t> shape{parts, rows};
  for (int64_t d = 1; d < likeness.numel() && likeness[d].item<int64_t>() >= 0; ++d)
    shape.push_back(likeness[d].item<int64_t>());
  return at::zeros(shape, at::ScalarType(likeness[0].item<int64_t>()));
}

}  // namespace

Tensor Shards::join(const std::vector<Tensor>& parts, int64_t batch) const {
  if (!several()) return parts.front();
  Tensor one;  // of this process's
  for (const Tensor& part : parts) one = part.defined() ? part : one;
  Tensor likeness = likeness_of(one);
  if (batch < count_) likeness = std::get<0>(group_->gather(likeness).max(0));
  int64_t most = 0;
  for (int64_t k = 0; k < count_; ++k) most = std::max(most, rows(k, batch).count);
  const Tensor held = room_like(likeness, int64_t(own_.size()), most);  // (own, most, ...)
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].defined()) held[int64_t(i)].narrow(0, 0, parts[i].size(0)).copy_(parts[i]);
  }
  const Tensor all = group_->gather(held).flatten(0, 1);  // (shards, most, ...)
  std::vector<Tensor> in_order;
  for (int64_t k = 0; k < count_; ++k)
    in_order.push_back(all[k].narrow(0, 0, rows(k, batch).count));
  const Tensor whole = at::cat(in_order);
  return one.defined() ? whole.to(one.device()) : whole;
}

Histories Shards::join(const std::vector<Histories>& parts, int64_t batch) const {
  if (!several()) return parts.front();
  for (const Histories& part : parts) {
    if (part.empty()) return {};
  }
  Histories whole(parts.front().size());
  for (size_t level = 0; level < whole.size(); ++level) {
    std::vector<Tensor> z, x, hidden;
    for (const Histories& part : parts) {
      z.push_back(part[level].z);
      x.push_back(part[level].x);
      std::vector<int64_t> own = part[level].hidden;
      if (z.back().defined()) own.resize(size_t(z.back().size(0)), 0);
      hidden.push_back(at::tensor(own, at::kLong));
    }
    if (!z.front().defined() || z.front().numel() == 0) continue;  // of no positions
    whole[level].z = join(z, batch);
    if (x.front().defined()) whole[level].x = join(x, batch);
    const Tensor all = join(hidden, batch);
    if (all.any().item<bool>())
      whole[level].hidden.assign(all.data_ptr<int64_t>(), all.data_ptr<int64_t>() + all.numel());
  }
  return whole;
}

std::vector<Histories> Shards::split(const Histories& whole) const {
  if (!several()) return {whole};
  std::vector<Histories> parts;
  for (const int64_t shard : own_) {
    Histories part(whole.size());
    for (size_t level = 0; level < whole.size(); ++level) {
      const History& from = whole[level];
      if (!from.z.defined()) continue;
      const Rows own = rows(shard, from.z.size(0));
      part[level].z = this->part(from.z, shard).clone();
      if (from.x.defined()) part[level].x = this->part(from.x, shard).clone();
      if (from.hidden.empty()) continue;
      part[level].hidden.assign(from.hidden.begin() + own.first,
                                from.hidden.begin() + own.first + own.count);
      part[level].hidden = still_hidden(std::move(part[level].hidden), 0);
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace deq
