// Gradients of one step, summed over the shards of all processes in the order of shards.
//
// An all-reduce adds in an order that depends on the place in the buffer and on the number of
// processes. Here every process gets a slice of each shard's gradient (all-to-all), adds the slices
// of shard 0, 1, ... one after the other, and hands the sum to all (all-gather): whoever computed a
// shard, the sum has the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <vector>

#include "deq/distributed/process_group.h"

namespace deq {

/// The gradients of some parameters. Those that are ready first go out, in buckets, while others
/// are still being computed: which these are the first step of each kind tells.
///
///   for each of its shards: begin(), backward passes, the last behind last_pass(), end()
///   finish()
///
/// The parameters are leaves, of one type and on one device.
class GradientSum {
 public:
  /// `shards` is a multiple of the processes. `bucket` is in numbers. Called by all processes
  /// at once.
  GradientSum(std::vector<at::Tensor> parameters, int64_t shards,
              std::shared_ptr<ProcessGroup> group, int64_t bucket = int64_t(1) << 19);
  ~GradientSum();

  /// Before a step whose backward passes are of this kind: passes of one kind have gradients ready
  /// in one order.
  void begin_step(int64_t kind);
  /// Before the backward passes of the next shard: no parameter has a gradient from here on.
  void begin();
  /// What comes behind it is the last backward pass of a shard.
  void last_pass();
  /// Within the last pass: what is ready is to wait for nothing that is not (the adjoint's solve,
  /// say).
  void mark();
  void end();
  /// Waits for the others, and puts the sums into the gradients. One that no shard had is none.
  /// Throws what went wrong underway.
  void finish();

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

}  // namespace deq
