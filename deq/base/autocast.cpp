#include "deq/base/autocast.h"

#include <ATen/autocast_mode.h>
#include <torch/version.h>

namespace deq {
namespace {

using c10::DeviceType;
using c10::ScalarType;

constexpr std::array<DeviceType, 2> kDevices = {DeviceType::CPU, DeviceType::CUDA};

// LibTorch 2.4 asks by device, and calls what asked before it deprecated.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
bool enabled_on(DeviceType device) { return at::autocast::is_autocast_enabled(device); }
ScalarType type_on(DeviceType device) { return at::autocast::get_autocast_dtype(device); }
void set_on(DeviceType device, bool enabled, ScalarType type) {
  at::autocast::set_autocast_enabled(device, enabled);
  at::autocast::set_autocast_dtype(device, type);
}
#else
bool enabled_on(DeviceType device) {
  return device == DeviceType::CPU ? at::autocast::is_cpu_enabled() : at::autocast::is_enabled();
}
ScalarType type_on(DeviceType device) {
  return device == DeviceType::CPU ? at::autocast::get_autocast_cpu_dtype()
                                   : at::autocast::get_autocast_gpu_dtype();
}
void set_on(DeviceType device, bool enabled, ScalarType type) {
  if (device == DeviceType::CPU) {
    at::autocast::set_cpu_enabled(enabled);
    at::autocast::set_autocast_cpu_dtype(type);
  } else {
    at::autocast::set_enabled(enabled);
    at::autocast::set_autocast_gpu_dtype(type);
  }
}
#endif

}  // namespace

bool autocast_enabled(DeviceType device) {
  return (device == DeviceType::CPU || device == DeviceType::CUDA) && enabled_on(device);
}

NoCastCache::NoCastCache() : before_(at::autocast::is_autocast_cache_enabled()) {
  at::autocast::set_autocast_cache_enabled(false);
}
NoCastCache::~NoCastCache() { at::autocast::set_autocast_cache_enabled(before_); }

AutocastState AutocastState::now() {
  AutocastState state;
  for (size_t i = 0; i < kDevices.size(); ++i) {
    state.enabled[i] = enabled_on(kDevices[i]);
    state.type[i] = type_on(kDevices[i]);
  }
  return state;
}

void AutocastState::set() const {
  for (size_t i = 0; i < kDevices.size(); ++i) set_on(kDevices[i], enabled[i], type[i]);
}

}  // namespace deq
