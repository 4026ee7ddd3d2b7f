#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>
#include <set>

#include "deq/gradients/unrolled.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

/// The edges that lead from the tape of `output` into nodes that are not part of it: everything
/// that f captured. Nodes count upward as they are made, so those of the tape are numbered from
/// `first` on; leaves (AccumulateGrad) carry the largest number and have no edges of their own.
edge_list captured_edges(const Tensor& output, uint64_t first, const Node* own_leaf) {
  edge_list captured;
  std::set<const Node*> visited;
  std::set<std::pair<const Node*, uint32_t>> found;
  std::vector<Node*> open{output.grad_fn().get()};
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (!node || !visited.insert(node).second) continue;
    for (const Edge& edge : node->next_edges()) {
      if (!edge.is_valid() || edge.function.get() == own_leaf) continue;
      const bool leaf = edge.function->num_outputs() == 0;
      if (!leaf && edge.function->sequence_nr() >= first) {
        open.push_back(edge.function.get());
      } else if (found.emplace(edge.function.get(), edge.input_nr).second) {
        captured.push_back(edge);
      }
    }
  }
  return captured;
}

/// `steps` levels of f as one node of the graph: keeps the state it started from, evaluates again
/// in backward.
struct SegmentNode : Node {
  Map f;
  Tensor start;  // detached
  int64_t steps = 0;
  double damping = 1;
  size_t captured = 0;  // the edges after the first, which is that of `start`

  variable_list apply(variable_list&& gradients) override {
    DEQ_CHECK(!at::GradMode::is_enabled(),
              "checkpointed gradient: differentiated twice (create_graph); use the gradient "
              "'unrolled' for that");
    variable_list result(captured + 1);
    if (!gradients[0].defined()) return result;
    at::AutoGradMode tape(true);
    const Tensor leaf = start.detach().requires_grad_(true);
    Tensor z = leaf;
    for (int64_t k = 0; k < steps; ++k) z = damped_step(f, z, damping);
    edge_list outputs{torch::autograd::impl::gradient_edge(leaf)};
    for (size_t i = 0; i < captured; ++i) outputs.push_back(next_edge(i + 1));
    at::AutoGradMode no_tape(false);
    return torch::autograd::Engine::get_default_engine().execute(
        {torch::autograd::impl::gradient_edge(z)}, {gradients[0]}, /*keep_graph=*/false,
        /*create_graph=*/false,
        /*accumulate_grad=*/false, outputs);
  }
  void release_variables() override { start.reset(); }
};

/// What f captured, from one evaluation whose tape is dropped at once.
edge_list find_captured(const Map& f, const Tensor& z) {
  const Tensor leaf = z.detach().requires_grad_(true);
  const uint64_t first = at::sequence_number::peek();
  const Tensor fz = f(leaf);
  if (!fz.requires_grad()) return {};
  return captured_edges(fz, first, torch::autograd::impl::gradient_edge(leaf).function.get());
}

Tensor run_segment(const Map& f, const Tensor& z, int64_t steps, double damping,
                   const edge_list& captured, Tensor* before_last) {
  Tensor end = z.detach();
  {
    at::AutoGradMode no_tape(false);
    for (int64_t k = 0; k < steps; ++k) {
      *before_last = end;
      end = damped_step(f, end, damping);
    }
  }
  auto node = std::shared_ptr<SegmentNode>(new SegmentNode(), torch::autograd::deleteNode);
  node->f = f;
  node->start = z.detach();
  node->steps = steps;
  node->damping = damping;
  node->captured = captured.size();
  edge_list edges = torch::autograd::collect_next_edges(z);
  edges.insert(edges.end(), captured.begin(), captured.end());
  node->set_next_edges(std::move(edges));
  Tensor output = end.detach();
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace

Equilibrated Checkpointed::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  validate(*this, "Checkpointed");
  if (!at::GradMode::is_enabled()) return Unrolled{steps, damping}.apply(f, z0, forward);
  const edge_list captured = find_captured(f, z0);
  const int64_t length = std::max<int64_t>(1, int64_t(std::lround(std::sqrt(double(steps)))));
  Tensor z = z0, before;
  for (int64_t done = 0; done < steps; done += length) {
    z = run_segment(f, z, std::min(length, steps - done), damping, captured, &before);
  }
  Report report = report_of_chain(before, z, steps, forward.stop);
  report.evaluations += 1;  // the one that found what f captured
  return {z, std::move(report)};
}

}  // namespace deq
