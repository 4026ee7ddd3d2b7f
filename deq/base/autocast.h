// Autocast around an f: LibTorch's operators then compute in fewer bits, and keep the casts of
// weights in a cache.
#pragma once

#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

#include <array>

namespace deq {

/// Whether this thread's operators on `device` cast what they are given.
bool autocast_enabled(c10::DeviceType device);

/// While it lives, this thread's casts are neither kept nor taken from the cache. A cast that was
/// kept without a tape would serve taped evaluations too, and cut the weight off from its gradient.
class NoCastCache {
 public:
  NoCastCache();
  ~NoCastCache();
  NoCastCache(const NoCastCache&) = delete;
  NoCastCache& operator=(const NoCastCache&) = delete;

 private:
  bool before_;
};

/// What autocast does in this thread, on the CPU and on CUDA, to be in force again in a thread that
/// runs backward.
struct AutocastState {
  std::array<bool, 2> enabled;
  std::array<c10::ScalarType, 2> type;

  static AutocastState now();
  void set() const;
};

/// A state in force while it lives.
class AutocastGuard {
 public:
  explicit AutocastGuard(const AutocastState& state) : before_(AutocastState::now()) {
    state.set();
  }
  ~AutocastGuard() { before_.set(); }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  AutocastState before_;
};

}  // namespace deq
