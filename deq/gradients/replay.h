// What a gradient mode that evaluates f again in backward must find as it was in forward.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace deq {

/// Where the generator of a device stands, from which an f of tensors there draws.
class Draws {
 public:
  Draws() = default;
  /// As it stands now.
  static Draws now(c10::Device device);

  /// Nothing to be drawn again where nothing was drawn since.
  void settle();
  bool any() const { return state_.defined(); }
  /// The generator's state as it stands now, after going back to this one; the same where nothing
  /// is to be drawn again.
  Draws go_back() const;

 private:
  at::Generator generator_;
  at::Tensor state_;  // undefined: nothing is drawn
};

/// Draws in force while it lives; the generator then goes on from where it was.
class DrawsAgain {
 public:
  explicit DrawsAgain(const Draws& draws) : before_(draws.go_back()) {}
  ~DrawsAgain() { before_.go_back(); }
  DrawsAgain(const DrawsAgain&) = delete;
  DrawsAgain& operator=(const DrawsAgain&) = delete;

 private:
  Draws before_;
};

/// Tensors that must not be written between forward and backward, with their versions.
class Unwritten {
 public:
  void add(const at::Tensor& tensor);
  /// The leaves among what a function captured.
  void add(const std::vector<torch::autograd::Edge>& captured);
  /// Throws deq::Error, beginning with `mode`, where one was written since.
  void check(const char* mode) const;

 private:
  std::vector<std::pair<at::Tensor, int64_t>> tensors_;
};

/// How far apart, as a norm, two evaluations of one f of the size of `state` may lie: well above
/// the rounding of its type.
double slack_of(const at::Tensor& state);

/// Throws deq::Error, beginning with `mode`, where the norm of `again` - `before` is larger than
/// `most`: f is no longer the same. What is not finite is not compared.
void check_same(const at::Tensor& again, const at::Tensor& before, double most, const char* mode);

}  // namespace deq
