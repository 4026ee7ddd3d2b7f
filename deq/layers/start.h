// Where a solve begins.
#pragma once

#include <ATen/core/Tensor.h>

#include "deq/base/fields.h"

namespace deq {

/// Zeros; N(0, std) for each number; one or the other for each sample, as likely; or the layer's
/// input, which must be as wide as its state; or where training left the problem the last time,
/// zeros the first time (train/remembered.h).
enum class StartKind { Zero, Normal, Mixed, Input, Remembered };
template <>
struct Names<StartKind> {
  static constexpr const char* values[] = {"zero", "normal", "mixed", "input", "remembered"};
};

/// The state that a solve starts from.
struct StartOptions {
  StartKind kind = StartKind::Zero;
  double std = 1.0;
  int64_t limit_mb = 64;

  static void fields(auto& self, auto&& field) {
    field("start", self.kind,
          "state that a solve starts from; mixed: zero or normal by sample; remembered: where the "
          "problem's last solve ended");
    field("start_std", self.std, "of a normal one", above(0));
    field("start_limit_mb", self.limit_mb,
          "megabytes of remembered states, in memory and in each checkpoint; what does not fit "
          "starts from zeros",
          between(1, 1 << 20));
  }
};

/// For x (B, T, X), or (B, H, W, X), and a state of `width` features: (B, T, width). Draws from
/// LibTorch's generator where it draws. Throws deq::Error for Input where X is not `width`.
at::Tensor make_start(const StartOptions& options, const at::Tensor& x, int64_t width);

}  // namespace deq
