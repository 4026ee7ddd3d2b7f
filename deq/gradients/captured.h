// What a function captured, found on its tape: the edges that lead out of it.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace deq {

using EdgeKey = std::pair<const torch::autograd::Node*, uint32_t>;
inline EdgeKey key_of(const torch::autograd::Edge& edge) {
  return {edge.function.get(), edge.input_nr};
}

/// Where a tape begins: every thread numbers its nodes upwards; leaves carry the largest number.
struct TapeMark {
  TapeMark();
  bool covers(const torch::autograd::Node& node) const {
    return node.thread_id() == thread && node.sequence_nr() >= first &&
           node.sequence_nr() != std::numeric_limits<uint64_t>::max();
  }
  uint64_t thread, first;
};

/// The edges that lead from the tape of `output`, recorded since `mark`, into nodes that were there
/// before, each once, without those to `leaves`.
std::vector<torch::autograd::Edge> captured_by(const at::Tensor& output, const TapeMark& mark,
                                               const std::vector<at::Tensor>& leaves);

/// Stand-ins for captured edges where backward evaluates again. Ending there, and not in the graph
/// behind it, keeps that graph from being run (and freed) once for every evaluation, and a weight
/// that f captured twice, once by way of another tensor, from being counted twice.
class Terminals {
 public:
  explicit Terminals(const std::vector<torch::autograd::Edge>& captured);

  /// Makes the tape of `output` end in the stand-ins and in `leaves`. Throws deq::Error, beginning
  /// with `mode`, where it leads anywhere else.
  void redirect(const at::Tensor& output, const TapeMark& mark,
                const std::vector<at::Tensor>& leaves, const char* mode) const;
  /// One for each captured edge, in order.
  const std::vector<torch::autograd::Edge>& ends() const { return ends_; }

 private:
  std::vector<torch::autograd::Edge> ends_;
  std::map<EdgeKey, torch::autograd::Edge> of_;
};

/// Gradients by `leaf`, from which `output` was evaluated since `mark`, and by each of the captured
/// edges, given that of `output`; undefined where there is none. Throws as Terminals::redirect.
torch::autograd::variable_list gradients_to(const at::Tensor& output, const at::Tensor& gradient,
                                            const TapeMark& mark, const at::Tensor& leaf,
                                            const std::vector<torch::autograd::Edge>& captured,
                                            const char* mode);

}  // namespace deq
