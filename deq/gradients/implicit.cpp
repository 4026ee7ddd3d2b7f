#include "deq/gradients/implicit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <unordered_set>

#include "deq/base/tensor_pool.h"
#include "deq/solvers/secants.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::Node;
using torch::autograd::variable_list;

/// z* with the gradient u of f(z*). Holds what backward needs of one call until backward has run.
struct ImplicitNode : Node {
  Implicit options;
  std::function<void(const Report&)> on_adjoint;
  std::shared_ptr<LatestReport> latest;
  Secants secants{0};
  Map::Series transposed;                       // u -> J^T u
  std::function<Tensor(const Tensor&)> direct;  // u, where f's owner gives it
  std::function<Map::Resolvent(const Tensor&)> resolvent;
  bool recordable = false;  // f is
  bool symmetric = false;   // J is

  variable_list apply(variable_list&& gradients) override {
    const std::lock_guard lock(mutex_);
    DEQ_CHECK(!c10::GradMode::is_enabled(),
              "implicit gradient: differentiated twice (create_graph); use the gradient 'unrolled' "
              "for that");
    DEQ_CHECK(transposed,
              "implicit gradient: backward a second time; expected retain_graph the first");
    if (!gradients[0].defined()) return variable_list(1);
    const Tensor g = gradients[0].contiguous();
    TensorPool pool;
    const Map::Series next = [&](const Tensor& u, const std::vector<int64_t>& done) {
      const Tensor product = transposed(u, done);
      if (!product.is_cpu()) return product + g;  // where it is recorded, memory is the graph's
      Tensor sum = pool.empty_like(product);
      return at::add_out(sum, product, g);
    };
    Map adjoint([&](const Tensor& u) { return next(u, {}); }, [&] { return next; });
    adjoint.set_recordable(recordable);
    if (resolvent) adjoint.set_resolvent([this, g] { return resolvent(g); });
    if (symmetric)  // (u, (I - J) u) / 2 - (g, u)
      adjoint.set_energy([&](const Tensor& rows) {
        const Tensor u = rows.view(g.sizes());
        return (0.5 * u * (u - next(u, {}) - g)).view({rows.size(0), -1}).sum(1);
      });
    const Tensor start = direct ? direct(g) : secants.adjoint(g);
    const Solution solution =
        deq::solve(adjoint, start, options.solver, options.stop, Order::Backward);
    latest->set(solution.report);
    if (on_adjoint) on_adjoint(solution.report);
    return {marked(solution.z, solution.report)};
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    transposed = nullptr;
    direct = nullptr;
    resolvent = nullptr;
    secants = Secants(0);
  }
};

/// Where the tape of f(z*) begins. Not a leaf: that would keep z* and its gradient as long as the
/// graph lives, which a loss holds.
struct Origin : Node {
  variable_list apply(variable_list&&) override { return {}; }
};

/// Whether the tape of f(z) leads to anything that wants a gradient besides z, its origin.
bool captures_what_needs_gradients(const Tensor& fz, const Tensor& z) {
  const auto origin = z.grad_fn();
  const auto tape = torch::autograd::impl::gradient_edge(fz).function;
  std::unordered_set<const Node*> visited;
  std::vector<const Node*> open{tape.get()};
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (node == origin.get() || !visited.insert(node).second) continue;
    bool ends = true;
    for (const auto& edge : node->next_edges()) {
      if (!edge.is_valid()) continue;
      ends = false;
      open.push_back(edge.function.get());
    }
    if (ends) return true;
  }
  return false;
}

}  // namespace

Equilibrated Implicit::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  validate(*this, "Implicit");
  const bool watched = shine > 0 && c10::GradMode::is_enabled();
  Secants secants(shine);
  Solution solution = forward.solve(watched ? secants.watch(f) : f, z0);
  if (!c10::GradMode::is_enabled()) return {solution.z, std::move(solution.report)};
  Tensor z = solution.z.detach();
  torch::autograd::set_history(z,
                               std::shared_ptr<Origin>(new Origin(), torch::autograd::deleteNode));
  Map::Linearised at_z = f.linearise(z);
  solution.report.evaluations += 1;
  confirm(solution.report, z, at_z.fz, forward.stop);
  if (!at_z.fz.requires_grad() || !captures_what_needs_gradients(at_z.fz, z))
    return {solution.z, std::move(solution.report)};
  auto node = std::shared_ptr<ImplicitNode>(new ImplicitNode(), torch::autograd::deleteNode);
  node->options = *this;
  node->on_adjoint = forward.on_adjoint;
  node->latest = std::make_shared<LatestReport>();
  secants.finish();
  node->secants = std::move(secants);
  node->transposed = std::move(at_z.transposed);
  node->direct = std::move(at_z.solve);
  node->resolvent = std::move(at_z.resolvent);
  node->recordable = f.recordable();
  node->symmetric = bool(f.energy());
  node->set_next_edges(torch::autograd::collect_next_edges(marked(at_z.fz, solution.report)));
  Equilibrated found{z.detach(), std::move(solution.report), node->latest};
  torch::autograd::set_history(found.z, node);
  return found;
}

}  // namespace deq
