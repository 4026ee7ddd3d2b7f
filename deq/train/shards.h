// A batch as shards: groups of consecutive rows, each of which one process trains on by itself.
#pragma once

#include <memory>

#include "deq/data/batch.h"
#include "deq/distributed/process_group.h"
#include "deq/layers/layer.h"

namespace deq {

/// Some consecutive rows of a batch.
struct Rows {
  int64_t first = 0;
  int64_t count = 0;
};

/// How many shards there are, and which of them are this process's. Shard k of a batch of B rows is
/// those from B k / K to B (k + 1) / K, whoever has it, so that what is computed of one does not
/// depend on the number of processes.
class Shards {
 public:
  /// One, of one process.
  Shards() : Shards(1, alone()) {}
  /// Throws deq::Error unless `count` is a multiple of the processes.
  Shards(int64_t count, std::shared_ptr<ProcessGroup> group);

  int64_t count() const { return count_; }
  bool several() const { return count_ > 1; }
  ProcessGroup& group() const { return *group_; }
  const std::shared_ptr<ProcessGroup>& shared_group() const { return group_; }
  /// Of this process, in order.
  const std::vector<int64_t>& own() const { return own_; }

  Rows rows(int64_t shard, int64_t batch) const;
  /// These rows of a batch; all of it where there is one shard.
  Batch part(const Batch& batch, int64_t shard) const;
  at::Tensor part(const at::Tensor& all, int64_t shard) const;

  /// The whole, (B, ...) on the device of the parts, of what all processes hold: `parts` are those
  /// of `own`, with as many rows as `rows` says of `batch`; all alike but for these. One that has
  /// no rows may be undefined.
  at::Tensor join(const std::vector<at::Tensor>& parts, int64_t batch) const;

  /// Histories of the whole, of those of `own`; and back.
  Histories join(const std::vector<Histories>& parts, int64_t batch) const;
  std::vector<Histories> split(const Histories& whole) const;

 private:
  int64_t count_;
  std::shared_ptr<ProcessGroup> group_;
  std::vector<int64_t> own_;
};

}  // namespace deq
