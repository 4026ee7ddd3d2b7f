// Counts what is allocated for tensors in this thread, as LibTorch's allocator reports it to a
// profiler.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/version.h>

#include <memory>

namespace deq::testing {

class AllocationCount {
#if TORCH_VERSION_MAJOR >= 2
  using Total = size_t;
#else
  using Total = int64_t;
#endif
  struct Counter : c10::MemoryReportingInfoBase {
    int64_t count = 0, largest = 0;
    void reportMemoryUsage(void*, int64_t bytes, Total, Total, c10::Device) override {
      count += bytes > 0;
      largest = bytes > largest ? bytes : largest;
    }
    bool memoryProfilingEnabled() const override { return true; }
  };

 public:
  int64_t count() const { return counter_->count; }
  int64_t largest() const { return counter_->largest; }  ///< bytes at once

 private:
  std::shared_ptr<Counter> counter_ = std::make_shared<Counter>();
  c10::DebugInfoGuard guard_{c10::DebugInfoKind::PROFILER_STATE, counter_};
};

}  // namespace deq::testing
