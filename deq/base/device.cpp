#include "deq/base/device.h"

#include <torch/cuda.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "deq/base/error.h"
#ifdef DEQ_WITH_CUDA
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace deq {

c10::Device device_of(const std::string& name) {
  constexpr std::string_view kCuda = "cuda:";
  if (name == "cpu") return c10::kCPU;
  int index = 0;
  if (name != "cuda") {
    const char* end = name.data() + name.size();
    const char* digits = name.data() + std::min(kCuda.size(), name.size());
    const auto parsed = std::from_chars(digits, end, index);
    DEQ_CHECK(
        name.rfind(kCuda, 0) == 0 && parsed.ec == std::errc() && parsed.ptr == end && index >= 0,
        "device = '{}'; expected cpu, cuda or cuda:N", name);
  }
  const auto count = int(torch::cuda::is_available() ? torch::cuda::device_count() : 0);
  const bool there = index < count;
  DEQ_CHECK(there, "device = '{}': LibTorch sees {} CUDA devices here; expected {}", name, count,
            count == 0 ? "cpu" : "a smaller number");
  return {c10::kCUDA, c10::DeviceIndex(index)};
}

c10::Device use_device(const std::string& name) {
  const c10::Device device = device_of(name);
#ifdef DEQ_WITH_CUDA
  if (device.is_cuda()) {
    c10::cuda::set_device(device.index());
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(false, device.index()));
  }
#endif
  return device;
}

void synchronize(c10::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

}  // namespace deq
