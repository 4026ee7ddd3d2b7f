#include "deq/gradients/reversible.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cmath>
#include <vector>

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

/// Both states, in double.
struct Pair {
  Tensor y, z;
};

/// Steps after which rounding may have grown by 2^18: of a double 1e-11 is left.
int64_t steps_between(double damping) {
  constexpr double kBits = 18;
  return std::max<int64_t>(1, int64_t(kBits / -std::log2(1 - damping)));
}

/// a <- (1 - damping) a + damping f, in place, and back.
void step(Tensor& a, const Tensor& f, double damping) { a.mul_(1 - damping).add_(f, damping); }
void undo(Tensor& a, const Tensor& f, double damping) { a.sub_(f, damping).div_(1 - damping); }

struct ReversibleNode : Node {
  Map f;
  ReversibleUnrolled options;
  AutocastState autocast;
  std::vector<Pair> kept;    // after each `steps_between`, and after all
  std::vector<Draws> draws;  // with which each half of a step was made; empty: nothing was drawn
  Tensor start;              // of `type`
  Unwritten unwritten;       // what f captured
  at::ScalarType type = at::kDouble;
  edge_list captured;  // the edges after the first

  variable_list apply(variable_list&& gradients) override {
    DEQ_CHECK(!c10::GradMode::is_enabled(),
              "reversible gradient: differentiated twice (create_graph); use the gradient "
              "'unrolled' for that");
    DEQ_CHECK(!kept.empty(),
              "reversible gradient: backward a second time; expected retain_graph the first");
    if (!gradients[0].defined()) return variable_list(num_outputs());
    unwritten.check(ReversibleUnrolled::name);
    Pair by{at::zeros_like(kept.back().y), gradients[0].to(at::kDouble).clone()}, at;
    variable_list sums(captured.size());
    const int64_t between = steps_between(options.damping);
    for (int64_t k = options.steps; k > 0; --k) {  // undoes step k
      if (k == options.steps || k % between == 0) {
        const Pair& known = kept[size_t((k - 1) / between)];
        if (k < options.steps) check_reached(at, known.y, known.z);
        at = {known.y.clone(), known.z.clone()};  // backward may come again
      }
      back(2 * k - 1, at.z, at.y, by.z, by.y, sums);
      back(2 * k - 2, at.y, at.z, by.y, by.z, sums);
    }
    check_reached(at, start, start);
    variable_list found{(by.y + by.z).to(type)};
    found.insert(found.end(), sums.begin(), sums.end());
    return found;
  }

  /// An f that is no longer the same undoes its steps to somewhere else.
  void check_reached(const Pair& at, const Tensor& y, const Tensor& z) const {
    const Pair& end = kept.back();
    check_same(at.y, y, 100 * slack_of(end.y.to(type)), ReversibleUnrolled::name);
    check_same(at.z, z, 100 * slack_of(end.z.to(type)), ReversibleUnrolled::name);
  }

  /// Undoes moved <- (1 - damping) moved + damping f(other), half a step, and takes its gradients
  /// back.
  void back(int64_t half, Tensor& moved, const Tensor& other, Tensor& by_moved, Tensor& by_other,
            variable_list& sums) const {
    const double damping = options.damping;
    const Tensor leaf = other.to(type).requires_grad_(true);
    const TapeMark mark;
    const Tensor value = [&] {
      const AutocastGuard as_before(autocast);
      const DrawsAgain same(draws.empty() ? Draws() : draws[size_t(half)]);
      return taped(f, leaf);
    }();
    undo(moved, value.detach(), damping);
    const Tensor g = (damping * by_moved).to(type);
    by_moved.mul_(1 - damping);
    if (!value.requires_grad()) return;
    const variable_list found =
        gradients_to(value, g, mark, leaf, captured, ReversibleUnrolled::name);
    if (found[0].defined()) by_other.add_(found[0]);
    for (size_t i = 0; i < sums.size(); ++i) {
      const Tensor& one = found[i + 1];
      if (one.defined()) sums[i] = sums[i].defined() ? sums[i] + one : one;
    }
  }

  static Tensor taped(const Map& f, const Tensor& leaf) {
    const c10::AutoGradMode tape(true);
    const NoCastCache no_cache;
    const Tensor fz = checked_value(f, leaf);
    return fz.view_as(fz);  // a node of its own, even where f returns what it captured
  }

  void release_variables() override {
    kept.clear();
    draws.clear();
    start.reset();
    unwritten = Unwritten();
    f = Map();
    captured.clear();
  }
};

/// f(z), and with what it was drawn.
Tensor value_of(const Map& f, const Tensor& z, std::vector<Draws>& draws) {
  draws.push_back(Draws::now(z.device()));
  Tensor fz = checked_value(f, z);
  draws.back().settle();
  return fz;
}

}  // namespace

Equilibrated ReversibleUnrolled::apply(const Map& f, const Tensor& z0,
                                       const Forward& forward) const {
  validate(*this, "ReversibleUnrolled");
  check_start(f, z0);
  const bool wanted = c10::GradMode::is_enabled();
  const at::ScalarType type = z0.scalar_type();
  std::vector<Pair> kept;
  std::vector<Draws> draws;
  const int64_t between = steps_between(damping);
  Pair pair{z0.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true),
            z0.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true)};
  {
    const c10::AutoGradMode no_tape(false);
    const NoCastCache no_cache;
    const auto value = [&](const Tensor& at) {
      return wanted ? value_of(f, at, draws) : checked_value(f, at);
    };
    for (int64_t k = 1; k <= steps; ++k) {
      step(pair.y, value(pair.z.to(type)), damping);
      step(pair.z, value(pair.y.to(type)), damping);
      if (wanted && k % between == 0 && k < steps) kept.push_back({pair.y.clone(), pair.z.clone()});
    }
  }
  Tensor z = pair.z.to(type, /*non_blocking=*/false, /*copy=*/true);
  const Tensor leaf = z.clone().requires_grad_(wanted);
  const TapeMark mark;
  const Tensor fz = wanted ? ReversibleNode::taped(f, leaf) : checked_value(f, z);
  Report report = report_of_chain(z, fz, steps, 1.0, forward.stop);
  report.evaluations = 2 * steps + 1;
  count_bad_starts(report, z0, Layout(z0, Scope::Sample, Order::Forward));
  edge_list captured;
  if (fz.requires_grad()) captured = captured_by(fz, mark, {leaf});
  if (!wanted || (captured.empty() && !z0.requires_grad())) return {z, std::move(report)};
  auto node = std::shared_ptr<ReversibleNode>(new ReversibleNode(), torch::autograd::deleteNode);
  node->f = f;
  node->options = *this;
  node->autocast = AutocastState::now();
  kept.push_back(std::move(pair));
  node->kept = std::move(kept);
  if (std::any_of(draws.begin(), draws.end(), [](const Draws& one) { return one.any(); }))
    node->draws = std::move(draws);
  node->start = z0.detach().clone();
  node->unwritten.add(captured);
  node->type = type;
  node->captured = captured;
  edge_list edges = torch::autograd::collect_next_edges(z0);
  edges.insert(edges.end(), captured.begin(), captured.end());
  node->set_next_edges(std::move(edges));
  torch::autograd::set_history(z, node);
  return {marked(z, report), std::move(report)};
}

}  // namespace deq
