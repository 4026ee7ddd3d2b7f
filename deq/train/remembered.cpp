#include "deq/train/remembered.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

Tensor Remembered::start(const Batch& batch, const Tensor& zeros) const {
  const Tensor z0 = zeros.clone();
  for (size_t b = 0; b < batch.problems.size(); ++b) {
    const auto found = states_.find(batch.problems[b]);
    if (found == states_.end()) continue;
    const Tensor row = z0[int64_t(b)];
    DEQ_CHECK(found->second.sizes() == row.sizes(),
              "problem {} was left in a state of shape [{}]; expected [{}]", batch.problems[b],
              fmt::join(found->second.sizes(), ", "), fmt::join(row.sizes(), ", "));
    row.copy_(found->second);
  }
  return z0;
}

void Remembered::keep(const Batch& batch, const Tensor& z) {
  const Tensor own = z.detach().to(at::kCPU);
  const Tensor finite = own.flatten(1).isfinite().all(1);
  for (size_t b = 0; b < batch.problems.size(); ++b) {
    const auto row = int64_t(b);
    if (!finite[row].item<bool>()) continue;
    const auto found = states_.find(batch.problems[b]);
    if (found != states_.end()) {
      found->second.copy_(own[row]);
      continue;
    }
    const auto size = int64_t(own[row].nbytes());
    if (bytes_ + size > limit_) continue;
    bytes_ += size;
    states_.emplace(batch.problems[b], own[row].clone());
  }
}

void Remembered::clear() {
  states_.clear();
  bytes_ = 0;
}

NamedTensors Remembered::state() const {
  if (states_.empty()) return {};
  std::vector<int64_t> problems, shapes;
  std::vector<Tensor> numbers;
  for (const auto& [problem, z] : states_) {
    problems.push_back(problem);
    shapes.insert(shapes.end(), z.sizes().begin(), z.sizes().end());
    numbers.push_back(z.flatten());
  }
  return {{"problems", at::tensor(problems, at::kLong)},
          {"shapes", at::tensor(shapes, at::kLong).view({int64_t(problems.size()), -1})},
          {"z", at::cat(numbers)}};
}

void Remembered::restore(const NamedTensors& state) {
  clear();
  if (state.empty()) return;
  const auto part = [&](const char* name) {
    const auto found = state.find(name);
    DEQ_CHECK(found != state.end(), "checkpoint: 'remembered.{}' is missing", name);
    return found->second.contiguous();
  };
  const Tensor problems = part("problems"), shapes = part("shapes"), z = part("z");
  const bool fits = problems.dim() == 1 && shapes.dim() == 2 && z.dim() == 1 &&
                    problems.scalar_type() == at::kLong && shapes.scalar_type() == at::kLong &&
                    shapes.size(0) == problems.size(0) &&
                    (shapes.numel() == 0 || shapes.min().item<int64_t>() >= 0) &&
                    shapes.prod(1).sum().item<int64_t>() == z.numel();
  DEQ_CHECK(fits, "checkpoint: 'remembered' holds {} states in {} numbers, which do not add up",
            problems.numel(), z.numel());
  int64_t first = 0;
  for (int64_t i = 0; i < problems.size(0); ++i) {
    const int64_t* sizes = shapes.data_ptr<int64_t>() + i * shapes.size(1);
    const at::IntArrayRef shape(sizes, size_t(shapes.size(1)));
    const int64_t count = shapes[i].prod().item<int64_t>();
    const Tensor own = z.narrow(0, first, count).view(shape).clone();
    first += count;
    if (bytes_ + int64_t(own.nbytes()) > limit_) continue;  // a lower limit than it was kept with
    bytes_ += int64_t(own.nbytes());
    states_.emplace(problems[i].item<int64_t>(), own);
  }
}

}  // namespace deq
