#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace deq {

/// What parameters are at one moment: where they lie, and what they hold, read as a whole: writes
/// through `data()`, as LibTorch's own SGD makes them, raise no version.
struct ParameterState {
  std::vector<std::pair<const void*, int64_t>> memory;  ///< and version
  uint64_t contents = 0;                                ///< a checksum; 0: not known

  bool operator==(const ParameterState& other) const = default;
};

/// Nothing where not all of them lie on the CPU: reading them there would wait for the device.
std::optional<ParameterState> state_of(const std::vector<at::Tensor>& parameters);

/// What follows from a cell's parameters alone: normalised weights, in the layout of the kernels.
/// In evaluation mode without a tape it is kept while they stay what they are, so that a new token
/// of a generated text pays for none of it.
template <class Made>
class Kept {
 public:
  explicit Kept(std::vector<at::Tensor> parameters) : parameters_(std::move(parameters)) {}

  /// use(made, contents), one thread at a time, where `made` is what make() gave for what the
  /// parameters hold now, whatever wrote it; `contents` as in ParameterState.
  template <class Make, class Use>
  auto with(const Make& make, const Use& use) {
    const std::lock_guard<std::mutex> held(guard_);
    std::optional<ParameterState> now = state_of(parameters_);
    if (!now || now != state_) {
      state_.reset();  // stays so where make() throws
      made_ = make();
      state_ = std::move(now);
    }
    return use(made_, state_ ? state_->contents : 0);
  }

 private:
  std::vector<at::Tensor> parameters_;
  std::mutex guard_;
  std::optional<ParameterState> state_;
  Made made_;
};

}  // namespace deq
