#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace at::cuda {
struct CUDAGraph;
}

namespace deq::cuda {

/// Whether this thread's stream can be recorded: not the default one.
bool can_record();

/// An evaluation recorded once as a CUDA graph and replayed on the same memory.
class Recording {
 public:
  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  bool recorded() const { return bool(graph_); }
  /// Records what `work` launches, and runs it once. The result, and all that `work` reads, keep
  /// their memory: what is to differ in a replay is written there before.
  at::Tensor record(const std::function<at::Tensor()>& work);
  at::Tensor replay();

 private:
  std::shared_ptr<at::cuda::CUDAGraph> graph_;
  at::Tensor result_;
};

}  // namespace deq::cuda
