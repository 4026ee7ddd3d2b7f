#include "deq/gradients/captured.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include "deq/base/error.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

struct Terminal : Node {
  explicit Terminal(const Edge& edge) {
    input_metadata_.emplace_back(edge.function->input_metadata(edge.input_nr));
  }
  variable_list apply(variable_list&&) override { return {}; }  // the engine stops before it
};

/// Calls `visit` for the edges that lead out of the tape of `output`: to everything that f
/// captured, and to the leaves that it started from.
template <class Visit>
void for_edges_out_of_tape(const Tensor& output, const TapeMark& mark, Visit&& visit) {
  std::set<const Node*> visited;
  std::vector<Node*> open{output.grad_fn().get()};
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (!visited.insert(node).second) continue;
    for (Edge& edge : node->next_edges()) {
      if (!edge.is_valid()) continue;
      if (mark.covers(*edge.function)) {
        open.push_back(edge.function.get());
      } else {
        visit(edge);
      }
    }
  }
}

edge_list edges_of(const std::vector<Tensor>& leaves) {
  edge_list edges;  // holds what keys point at
  for (const Tensor& leaf : leaves) {
    if (leaf.requires_grad()) edges.push_back(torch::autograd::impl::gradient_edge(leaf));
  }
  return edges;
}

}  // namespace

TapeMark::TapeMark()
    : thread(at::RecordFunction::currentThreadId()), first(at::sequence_number::peek()) {}

edge_list captured_by(const Tensor& output, const TapeMark& mark,
                      const std::vector<Tensor>& leaves) {
  const edge_list own = edges_of(leaves);
  std::set<EdgeKey> found;
  for (const Edge& edge : own) found.insert(key_of(edge));
  edge_list captured;
  for_edges_out_of_tape(output, mark, [&](Edge& edge) {
    if (found.insert(key_of(edge)).second) captured.push_back(edge);
  });
  return captured;
}

Terminals::Terminals(const edge_list& captured) {
  for (const Edge& edge : captured) {
    ends_.emplace_back(std::make_shared<Terminal>(edge), 0);
    of_.emplace(key_of(edge), ends_.back());
  }
}

void Terminals::redirect(const Tensor& output, const TapeMark& mark,
                         const std::vector<Tensor>& leaves, const char* mode) const {
  const edge_list own = edges_of(leaves);
  for_edges_out_of_tape(output, mark, [&](Edge& edge) {
    for (const Edge& leaf : own) {
      if (key_of(edge) == key_of(leaf)) return;
    }
    for (const Edge& end : ends_) {
      if (edge.function == end.function) return;  // redirected already
    }
    const auto found = of_.find(key_of(edge));
    DEQ_CHECK(found != of_.end(),
              "{} gradient: f uses '{}' in backward and did not at the start; expected an f that "
              "captures the same tensors at every call",
              mode, edge.function->name());
    edge = found->second;
  });
}

variable_list gradients_to(const Tensor& output, const Tensor& gradient, const TapeMark& mark,
                           const Tensor& leaf, const edge_list& captured, const char* mode) {
  const Terminals terminals(captured);
  terminals.redirect(output, mark, {leaf}, mode);
  edge_list ends{torch::autograd::impl::gradient_edge(leaf)};
  ends.insert(ends.end(), terminals.ends().begin(), terminals.ends().end());
  return torch::autograd::Engine::get_default_engine().execute(
      {torch::autograd::impl::gradient_edge(output)}, {gradient}, /*keep_graph=*/false,
      /*create_graph=*/false, /*accumulate_grad=*/false, ends);
}

}  // namespace deq
