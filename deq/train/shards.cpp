#include "deq/train/shards.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

Shards::Shards(int64_t count, std::shared_ptr<Group> group)
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

Tensor Shards::join(const std::vector<Tensor>& parts, int64_t batch) const {
  if (!several()) return parts.front();
  const auto one =
      std::find_if(parts.begin(), parts.end(), [](const Tensor& p) { return p.defined(); });
  DEQ_CHECK(one != parts.end(), "a batch of {} rows in {} shards; expected at least one row each",
            batch, count_);
  int64_t most = 0;
  for (int64_t k = 0; k < count_; ++k) most = std::max(most, rows(k, batch).count);
  std::vector<int64_t> shape = one->sizes().vec();
  shape[0] = most;
  shape.insert(shape.begin(), int64_t(own_.size()));
  const Tensor held = at::zeros(shape, one->options().device(at::kCPU));  // (own, most, ...)
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].defined()) held[int64_t(i)].narrow(0, 0, parts[i].size(0)).copy_(parts[i]);
  }
  const Tensor all = group_->gather(held).flatten(0, 1);  // (shards, most, ...)
  std::vector<Tensor> in_order;
  for (int64_t k = 0; k < count_; ++k)
    in_order.push_back(all[k].narrow(0, 0, rows(k, batch).count));
  return at::cat(in_order).to(one->device());
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
