// What follows from a cell's parameters alone: normalised weights, in the layout of the kernels. In
// evaluation mode without a tape it is kept while they stay what they are, so that a new token of a
// generated text pays for none of it.
#pragma once

#include <torch/nn/module.h>

#include <mutex>
#include <utility>
#include <vector>

namespace deq {

template <class Made>
class Kept {
 public:
  /// use(made), one thread at a time, where `made` is what make() gave for the present parameters
  /// of `module`. A change of them behind autograd's back (through `data()`) is not seen.
  template <class Make, class Use>
  auto with(const torch::nn::Module& module, const Make& make, const Use& use) {
    const std::lock_guard<std::mutex> held(guard_);
    Versions now;
    bool known = true;
    for (const at::Tensor& parameter : module.parameters()) {
      known = known && !parameter.is_inference();
      now.emplace_back(parameter.data_ptr(), known ? int64_t(parameter._version()) : -1);
    }
    if (!known || now.empty() || now != versions_) made_ = make();
    versions_ = std::move(now);
    return use(made_);
  }

 private:
  using Versions = std::vector<std::pair<const void*, int64_t>>;  // memory and version

  std::mutex guard_;
  Versions versions_;
  Made made_;
};

}  // namespace deq
