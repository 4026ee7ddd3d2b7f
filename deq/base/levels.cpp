#include "deq/base/levels.h"

#include <ATen/ATen.h>

#include <cmath>

#include "deq/base/error.h"

namespace deq {

int64_t level_of(double value) {
  if (std::isnan(value)) return kMissing;
  DEQ_CHECK(std::abs(value) <= kLargestValue, "value = {}; expected -2^28 to 2^28", value);
  return kZeroLevel + int64_t(std::llround(value / kLevelStep));
}

at::Tensor values_of(const at::Tensor& ids) {
  return (ids - kZeroLevel).to(at::kDouble).mul_(kLevelStep).masked_fill_(ids < kMarks, 0);
}

at::Tensor known_values(const at::Tensor& ids) { return ids >= kMarks; }

}  // namespace deq
