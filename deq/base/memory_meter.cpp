#include "deq/base/memory_meter.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <sys/resource.h>
#include <torch/version.h>

#include <algorithm>
#include <memory>

namespace deq {
namespace {

#if TORCH_VERSION_MAJOR >= 2
using Total = size_t;
#else
using Total = int64_t;
#endif

/// LibTorch's allocator reports to it as it would to a profiler.
struct Meter : c10::MemoryReportingInfoBase {
  explicit Meter(c10::DeviceType kind) : kind(kind) {}
  c10::DeviceType kind;
  int64_t current = 0, peak = 0;

  void reportMemoryUsage(void*, int64_t bytes, Total, Total, c10::Device device) override {
    if (device.type() != kind) return;
    current += bytes;
    peak = std::max(peak, current);
  }
  bool memoryProfilingEnabled() const override { return true; }
};

}  // namespace

int64_t peak_tensor_bytes(const std::function<void()>& work, c10::DeviceType kind) {
  const auto meter = std::make_shared<Meter>(kind);
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  work();
  return meter->peak;
}

double peak_process_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

}  // namespace deq
