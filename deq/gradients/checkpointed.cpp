#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>

#include "deq/base/autocast.h"
#include "deq/gradients/captured.h"
#include "deq/gradients/replay.h"
#include "deq/gradients/unrolled.h"
#include "deq/solvers/start.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

/// Some levels as one node of the graph: keeps the state they started from, evaluates them again in
/// backward.
struct SegmentNode : Node {
  std::vector<Map> levels;
  AutocastState autocast;   // in which they were evaluated
  Draws draws;              // with which
  Tensor start, end;        // detached
  Unwritten unwritten;      // what it captured, and the start
  int64_t end_version = 0;  // the end is the user's, who may write to it
  edge_list captured;       // the edges after the first; those an enclosing segment may redirect

  variable_list apply(variable_list&& gradients) override {
    DEQ_CHECK(!c10::GradMode::is_enabled(),
              "checkpointed gradient: differentiated twice (create_graph); use the gradient "
              "'unrolled' for that");
    DEQ_CHECK(!levels.empty(),
              "checkpointed gradient: backward a second time; expected retain_graph the first");
    if (!gradients[0].defined()) return variable_list(num_outputs());
    unwritten.check(Checkpointed::name);
    const Tensor leaf = start.detach().requires_grad_(true);
    const TapeMark mark;
    const Tensor again = [&] {
      const AutocastGuard as_before(autocast);
      const DrawsAgain same(draws);
      return evaluate_taped(levels, leaf);
    }();
    if (!again.requires_grad()) return variable_list(num_outputs());
    variable_list found =
        gradients_to(again, gradients[0], mark, leaf, captured, Checkpointed::name);
    if (end._version() == end_version) check_same(again, end, slack_of(end), Checkpointed::name);
    return found;
  }

  static Tensor evaluate_taped(const std::vector<Map>& levels, const Tensor& leaf) {
    c10::AutoGradMode tape(true);
    const NoCastCache no_cache;  // each tape makes its own casts of what it captures
    const Tensor z = unrolled_levels(levels, leaf);
    return z.view_as(z);  // a node of its own, even where f returns what it captured
  }

  void release_variables() override {
    start.reset();
    end.reset();
    unwritten = Unwritten();
    captured.clear();
    levels.clear();
  }
};

/// One segment: evaluated with a tape, from which the edges to what it captured are taken, and
/// which is then dropped. Its memory is what backward will need again.
Tensor run_segment(std::vector<Map> levels, const Tensor& z) {
  const Tensor start = z.is_inference() ? z.clone() : z.detach();
  const Tensor leaf = start.detach().requires_grad_(true);
  Draws draws = Draws::now(z.device());
  const TapeMark mark;
  const Tensor end = SegmentNode::evaluate_taped(levels, leaf);
  draws.settle();
  Tensor output = end.detach().clone();  // no view of a tape
  edge_list captured;
  if (end.requires_grad()) captured = captured_by(end, mark, {leaf});
  if (captured.empty() && !z.requires_grad()) return output;
  auto node = std::shared_ptr<SegmentNode>(new SegmentNode(), torch::autograd::deleteNode);
  node->levels = std::move(levels);
  node->autocast = AutocastState::now();
  node->draws = draws;
  node->start = start;
  node->end = output.detach();
  node->unwritten.add(start);
  node->unwritten.add(captured);
  node->end_version = output._version();
  node->captured = captured;
  edge_list edges = torch::autograd::collect_next_edges(z);
  edges.insert(edges.end(), captured.begin(), captured.end());
  node->set_next_edges(std::move(edges));
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace

Tensor checkpointed_levels(const std::vector<Map>& levels, const Tensor& z0) {
  if (!c10::GradMode::is_enabled()) return unrolled_levels(levels, z0);
  const auto count = int64_t(levels.size());
  const int64_t length = std::max<int64_t>(1, int64_t(std::lround(std::sqrt(double(count)))));
  Tensor z = z0;
  for (int64_t first = 0; first < count; first += length) {
    const int64_t last = std::min(first + length, count);
    z = run_segment({levels.begin() + first, levels.begin() + last}, z);
  }
  return z;
}

Equilibrated Checkpointed::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  validate(*this, "Checkpointed");
  check_start(f, z0);
  auto before = std::make_shared<Tensor>();  // of the last level's first call
  const Map level([f, damping = damping](const Tensor& z) { return damped_step(f, z, damping); },
                  {});
  std::vector<Map> levels(size_t(steps), level);
  levels.back() = Map(
      [level, before](const Tensor& z) {
        if (!before->defined()) *before = z.detach();
        return level(z);
      },
      {});
  const Tensor z = checkpointed_levels(levels, z0);
  Report report = report_of_chain(*before, z, steps, damping, forward.stop);
  count_bad_starts(report, z0, Layout(z0, Scope::Sample, Order::Forward));
  return {z, std::move(report)};
}

}  // namespace deq
