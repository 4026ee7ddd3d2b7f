#include "deq/layers/ode_node.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <mutex>

namespace deq::ode {
namespace {

using at::Tensor;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

Tensor zeros_for(const torch::autograd::Edge& edge) {
  return edge.function->input_metadata(edge.input_nr).zeros_like();
}

struct ZeroNode : Node {
  variable_list apply(variable_list&&) override {
    variable_list found;
    for (const auto& edge : next_edges()) found.push_back(zeros_for(edge));
    return found;
  }
};

struct SolveNode : Node {
  SolveNode(const Field& field, edge_list edges, std::unique_ptr<Adjoint> how, const char* name)
      : f(field), captured(std::move(edges)), adjoint(std::move(how)), mode(name) {}

  Field f;
  edge_list captured;
  std::unique_ptr<Adjoint> adjoint;
  const char* mode;
  AutocastState autocast = AutocastState::now();

  variable_list apply(variable_list&& gradients) override {
    const std::lock_guard lock(mutex_);
    DEQ_CHECK(!c10::GradMode::is_enabled(),
              "{} gradient: differentiated twice (create_graph); use the gradient 'unrolled' for "
              "that",
              mode);
    DEQ_CHECK(adjoint, "{} gradient: backward a second time; expected retain_graph the first",
              mode);
    if (!gradients[0].defined()) return variable_list(num_outputs());
    TapedField taped(f, captured, autocast, mode);
    variable_list found{adjoint->pull(gradients[0], taped)};
    for (Tensor& sum : taped.take_sums()) found.push_back(sum);
    return found;
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    adjoint = nullptr;
    captured.clear();
  }
};

}  // namespace

Tensor with_adjoint(const Tensor& values, const Tensor& y0, const edge_list& captured,
                    const Field& f, std::unique_ptr<Adjoint> adjoint, const char* mode) {
  auto node = std::shared_ptr<SolveNode>(new SolveNode(f, captured, std::move(adjoint), mode),
                                         torch::autograd::deleteNode);
  edge_list edges = torch::autograd::collect_next_edges(y0);
  edges.insert(edges.end(), captured.begin(), captured.end());
  node->set_next_edges(std::move(edges));
  Tensor output = values.detach();
  torch::autograd::set_history(output, node);
  return output;
}

Tensor with_zero_gradient(const Tensor& value, const edge_list& edges) {
  edge_list own;
  for (const auto& edge : edges) {
    if (edge.is_valid()) own.push_back(edge);
  }
  if (own.empty()) return value;
  const std::shared_ptr<ZeroNode> node(new ZeroNode, torch::autograd::deleteNode);
  node->set_next_edges(std::move(own));
  Tensor output = value.detach();
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace deq::ode
