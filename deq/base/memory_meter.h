// How much memory tensors hold at most while a piece of code runs, and the process so far.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

namespace deq {

/// The bytes of tensors that are alive on a kind of device at the peak of `work`, over those before
/// it; counted in the calling thread and, on a GPU, in the one where LibTorch runs backward for it.
/// What `work` allocates in threads of its own, or outside tensors, is not seen.
int64_t peak_tensor_bytes(const std::function<void()>& work,
                          c10::DeviceType kind = c10::DeviceType::CPU);

/// The most memory this process has held so far, libraries included, in MB (2^20 bytes).
double peak_process_megabytes();

}  // namespace deq
