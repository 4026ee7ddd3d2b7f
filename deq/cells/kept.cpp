#include "deq/cells/kept.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "deq/ops/checksum.h"

namespace deq {

std::optional<ParameterState> state_of(const std::vector<at::Tensor>& parameters) {
  constexpr int64_t kFew = 8 << 20;  // bytes, which one thread reads sooner than two meet
  ParameterState now;
  std::vector<at::Tensor> held;
  int64_t bytes = 0;
  for (const at::Tensor& parameter : parameters) {
    if (!parameter.is_cpu()) return std::nullopt;
    now.memory.emplace_back(parameter.data_ptr(),
                            parameter.is_inference() ? -1 : int64_t(parameter._version()));
    held.push_back(parameter.is_contiguous() ? parameter : parameter.detach().contiguous());
    bytes += int64_t(parameter.nbytes());
  }
  std::vector<uint64_t> sums(held.size());
  const auto count = int64_t(held.size());
  at::parallel_for(0, count, bytes < kFew ? count : 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      sums[size_t(i)] =
          ops::checksum(held[size_t(i)].data_ptr(), int64_t(held[size_t(i)].nbytes()));
  });
  now.contents = 1;
  for (size_t i = 0; i < held.size(); ++i) {
    now.contents = ops::joined(now.contents, uint64_t(held[i].scalar_type()));
    now.contents = ops::joined(now.contents, sums[i]);
  }
  return now;
}

}  // namespace deq
