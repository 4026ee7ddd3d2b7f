#include "deq/ops/recording_cuda.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <map>

namespace deq::cuda {
namespace {

/// The graphs of one thread and device share one pool of memory, which lives as long as one of
/// them: so the latest one is kept. It is never freed, as CUDA may be gone before a thread's end.
struct Pool {
  decltype(at::cuda::graph_pool_handle()) id = at::cuda::graph_pool_handle();
  std::shared_ptr<at::cuda::CUDAGraph> latest;
};

Pool& pool_of(c10::DeviceIndex device) {
  thread_local auto* pools = new std::map<c10::DeviceIndex, Pool>();
  return (*pools)[device];
}

}  // namespace

bool can_record() {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  return stream != c10::cuda::getDefaultCUDAStream(stream.device_index());
}

Recording::Recording() = default;
Recording::~Recording() = default;

at::Tensor Recording::record(const std::function<at::Tensor()>& work) {
  Pool& pool = pool_of(c10::cuda::current_device());
  auto graph = std::make_shared<at::cuda::CUDAGraph>();
  graph->capture_begin(pool.id, cudaStreamCaptureModeThreadLocal);
  try {
    result_ = work();
  } catch (...) {
    try {
      graph->capture_end();
    } catch (const std::exception&) {  // the first one says why
    }
    throw;
  }
  graph->capture_end();
  pool.latest = graph;
  graph_ = std::move(graph);
  return replay();
}

at::Tensor Recording::replay() {
  graph_->replay();
  return result_;
}

}  // namespace deq::cuda
