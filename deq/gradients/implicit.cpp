#include "deq/gradients/implicit.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "deq/base/tensor_pool.h"
#include "deq/solvers/secants.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What backward needs of one call. Never the node's own output: that would be a cycle.
struct Tape : torch::CustomClassHolder {
  Implicit options;
  std::function<void(const Report&)> on_adjoint;
  Secants secants{0};
  Tensor z;                 // z*
  Map::Series transposed;   // u -> J^T u
  bool recordable = false;  // f is
};
constexpr const char* kTape = "tape";

struct ImplicitNode : torch::autograd::Function<ImplicitNode> {
  static Tensor forward(AutogradContext* context, const Tensor& fz, c10::intrusive_ptr<Tape> tape) {
    const Tensor value = tape->z.detach();
    context->saved_data[kTape] = c10::IValue::make_capsule(std::move(tape));
    return value;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    DEQ_CHECK(!at::GradMode::is_enabled(),
              "implicit gradient: differentiated twice (create_graph); use the gradient 'unrolled' "
              "for that");
    if (!gradients[0].defined()) return {Tensor(), Tensor()};
    const auto tape =
        c10::static_intrusive_pointer_cast<Tape>(context->saved_data[kTape].toCapsule());
    const Tensor g = gradients[0].contiguous();
    TensorPool pool;
    const Map::Series next = [&](const Tensor& u, const std::vector<int64_t>& done) {
      const Tensor product = tape->transposed(u, done);
      if (!product.is_cpu()) return product + g;  // where it is recorded, memory is the graph's
      Tensor sum = pool.empty_like(product);
      return at::add_out(sum, product, g);
    };
    Map adjoint([&](const Tensor& u) { return next(u, {}); }, [&] { return next; });
    adjoint.set_recordable(tape->recordable);
    const Solution solution = deq::solve(adjoint, tape->secants.adjoint(g), tape->options.solver,
                                         tape->options.stop, Order::Backward);
    if (tape->on_adjoint) tape->on_adjoint(solution.report);
    return {solution.z, Tensor()};
  }
};

}  // namespace

Equilibrated Implicit::apply(const Map& f, const Tensor& z0, const Forward& forward) const {
  validate(*this, "Implicit");
  const bool watched = shine > 0 && at::GradMode::is_enabled();
  Secants secants(shine);
  Solution solution = forward.solve(watched ? secants.watch(f) : f, z0);
  if (!at::GradMode::is_enabled()) return {solution.z, std::move(solution.report)};
  const Tensor z = solution.z.detach().requires_grad_(true);
  Map::Linearised at_z = f.linearise(z);
  solution.report.evaluations += 1;
  if (!at_z.fz.requires_grad()) return {solution.z, std::move(solution.report)};
  auto tape = c10::make_intrusive<Tape>();
  tape->options = *this;
  tape->on_adjoint = forward.on_adjoint;
  secants.finish();
  tape->secants = std::move(secants);
  tape->z = z;
  tape->transposed = std::move(at_z.transposed);
  tape->recordable = f.recordable();
  return {ImplicitNode::apply(at_z.fz, std::move(tape)), std::move(solution.report)};
}

}  // namespace deq
