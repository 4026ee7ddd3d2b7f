#include "deq/ops/group_step.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <utility>

#include "deq/base/error.h"
#include "deq/ops/group_step_cpu.h"
#include "deq/ops/shapes.h"
#include "deq/ops/twice.h"
#include "deq/ops/unchanged.h"

namespace deq::ops {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

void check_context(const GroupContext& c) {
  DEQ_CHECK(c.own.defined() && c.own.dim() == 2, "group_step: own is {}; expected (I, w)",
            shape_of(c.own));
  const int64_t I = c.own.size(0), w = c.own.size(1), K = int64_t(c.groupings.size());
  DEQ_CHECK(c.place.defined() && c.place.sizes() == c.own.sizes(),
            "group_step: place is {}; expected [{}, {}]", shape_of(c.place), I, w);
  DEQ_CHECK(c.output.defined() && c.output.sizes() == at::IntArrayRef({w, I}),
            "group_step: output is {}; expected [{}, {}]", shape_of(c.output), w, I);
  DEQ_CHECK(c.kinds.defined() && c.kinds.sizes() == at::IntArrayRef({K, I, w}),
            "group_step: kinds are {}; expected [{}, {}, {}]", shape_of(c.kinds), K, I, w);
  DEQ_CHECK(c.injected.defined() && c.injected.dim() == 4 && c.injected.size(3) == I,
            "group_step: injected is {}; expected (batch, places, symbols, {})",
            shape_of(c.injected), I);
  for (const auto& set : c.groupings) {
    for (const Grouping& grouping : set) {
      DEQ_CHECK(int64_t(grouping.group.size()) == c.injected.size(1),
                "group_step: a grouping of {} places; expected {}", grouping.group.size(),
                c.injected.size(1));
      for (const int64_t group : grouping.group)
        DEQ_CHECK(group >= -1 && group < grouping.count, "group_step: group {}; expected -1 to {}",
                  group, grouping.count - 1);
    }
  }
  for (const Tensor* t : {&c.place, &c.output, &c.kinds, &c.injected})
    DEQ_CHECK(t->scalar_type() == c.own.scalar_type(),
              "group_step: weights are {} and what stands beside them {}; expected one type",
              c10::toString(c.own.scalar_type()), c10::toString(t->scalar_type()));
}

void check_state(const Tensor& z, const GroupContext& c) {
  const int64_t expected =
      c.injected.size(0) * c.injected.size(1) * c.injected.size(2) * c.own.size(1);
  DEQ_CHECK(z.defined() && z.numel() == expected && z.scalar_type() == c.own.scalar_type(),
            "group_step: z is {}, {}; expected ({}, {}, {}, {}), {}", shape_of(z),
            c10::toString(z.scalar_type()), c.injected.size(0), c.injected.size(1),
            c.injected.size(2), c.own.size(1), c10::toString(c.own.scalar_type()));
}

/// (P, P): row p has, for each of the groupings, the mean over the places of p's group.
Tensor mean_matrix(const std::vector<Grouping>& groupings, const Tensor& like) {
  Tensor sum;
  for (const Grouping& grouping : groupings) {
    const Tensor group = at::tensor(grouping.group, at::kLong);
    const Tensor same = group.unsqueeze(0).eq(group.unsqueeze(1)).logical_and(group.ge(0));
    const Tensor mean = same.to(at::kDouble) / same.sum(1, true).clamp_min(1);
    sum = sum.defined() ? sum + mean : mean;
  }
  return sum.to(like.options().requires_grad(false));
}

}  // namespace

Tensor group_step_reference(const Tensor& z, const GroupContext& c) {
  check_state(z, c);
  const Tensor states = z.reshape({c.injected.size(0), c.injected.size(1), c.injected.size(2), -1});
  Tensor sum = c.injected + at::linear(states, c.own) + at::linear(states.mean(2, true), c.place);
  for (size_t k = 0; k < c.groupings.size(); ++k) {
    const Tensor mean =
        at::matmul(mean_matrix(c.groupings[k], z), states.flatten(2)).view(states.sizes());
    sum = sum + at::linear(mean, c.kinds[int64_t(k)]);
  }
  const Tensor y = states + at::linear(sum.relu(), c.output);
  return (y * (y.square().mean(-1, true) + 1e-6).rsqrt()).view(z.sizes());
}

struct GroupStep::Bound {
  GroupContext context;
  Unchanged unchanged;
  bool kernels = false;
  GroupWeights weights;
};

GroupStep::GroupStep(GroupContext context) {
  check_context(context);
  context.injected = context.injected.contiguous();
  auto bound = std::make_shared<Bound>();
  bound->unchanged = Unchanged({{"own", context.own},
                                {"place", context.place},
                                {"kinds", context.kinds},
                                {"output", context.output},
                                {"injected", context.injected}});
  const auto type = context.own.scalar_type();
  bound->kernels = context.own.is_cpu() && (type == at::kFloat || type == at::kDouble);
  if (bound->kernels) bound->weights = GroupWeights(context);
  bound->context = std::move(context);
  bound_ = std::move(bound);
}

const GroupContext& GroupStep::context() const { return bound_->context; }

bool GroupStep::on_cpu(const Tensor& z) const {
  check_state(z, context());
  if (!bound_->kernels || z.numel() == 0) return false;
  bound_->unchanged.check("group_step");
  return true;
}

/// z, injected, own, place, kinds, output.
struct GroupStep::Node : torch::autograd::Function<GroupStep::Node> {
  static constexpr size_t kInputs = 6;
  struct Held : torch::CustomClassHolder {
    std::shared_ptr<const Bound> bound;
    GroupKept kept;
  };

  static Tensor forward(AutogradContext* context, const Tensor& z, const Tensor& /*injected*/,
                        const Tensor& /*own*/, const Tensor& /*place*/, const Tensor& /*kinds*/,
                        const Tensor& /*output*/, c10::intrusive_ptr<Held> held) {
    const GroupKept k = std::exchange(held->kept, {});
    context->save_for_backward({z, k.f, k.hidden, k.scale, k.means});
    context->saved_data["held"] = c10::IValue::make_capsule(std::move(held));
    return k.f;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list found(kInputs + 1);
    if (!gradients[0].defined()) return found;
    const variable_list saved = context->get_saved_variables();
    const auto held =
        c10::static_intrusive_pointer_cast<Held>(context->saved_data["held"].toCapsule());
    const GroupContext& c = held->bound->context;
    held->bound->unchanged.check("group_step");
    if (c10::GradMode::is_enabled()) {
      const auto f = [&](const variable_list& x) {
        return group_step_reference(x[0], {x[2], x[3], x[4], x[5], x[1], c.groupings});
      };
      found = taped_gradients(f, {saved[0], c.injected, c.own, c.place, c.kinds, c.output},
                              gradients[0]);
      found.resize(kInputs + 1);
      return found;
    }
    const bool all = context->needs_input_grad({{1, kInputs}});
    const GroupGiven given = group_backward_cpu(c, held->bound->weights, saved[0],
                                                {saved[1], saved[2], saved[3], saved[4]},
                                                gradients[0].contiguous(), all);
    found[0] = given.z;
    if (!all) return found;
    found[1] = given.injected;
    found[2] = given.own;
    found[3] = given.place;
    found[4] = given.kinds;
    found[5] = given.output;
    return found;
  }
};

/// f(z) with its tape, which `kept` was made for.
Tensor GroupStep::taped(const Tensor& z, GroupKept kept) const {
  auto held = c10::make_intrusive<Node::Held>();
  held->bound = bound_;
  held->kept = std::move(kept);
  const GroupContext& c = context();
  return Node::apply(z.contiguous(), c.injected, c.own, c.place, c.kinds, c.output,
                     std::move(held));
}

Tensor GroupStep::operator()(const Tensor& z) const {
  if (!on_cpu(z)) return z.numel() > 0 ? group_step_reference(z, context()) : z.clone();
  const bool tape = c10::GradMode::is_enabled();
  const Tensor at_z = z.detach().contiguous();
  GroupKept kept = group_forward_cpu(context(), bound_->weights, at_z, tape);
  return tape ? taped(z, std::move(kept)) : kept.f;
}

Map::Linearised GroupStep::linearise(const Tensor& z) const {
  if (!on_cpu(z)) return Map([step = *this](const Tensor& x) { return step(x); }).linearise(z);
  const Tensor at_z = z.detach().contiguous();
  GroupKept kept = group_forward_cpu(context(), bound_->weights, at_z, true);
  const Tensor fz = taped(z, kept);
  kept.f = kept.f.detach();  // what is f's product must not hold f's tape
  const Unchanged state({{"z", at_z}, {"f(z)", kept.f}});
  return {fz, [bound = bound_, kept, state, passed = std::make_shared<GroupSeries>()](
                  const Tensor& u, const std::vector<int64_t>& done) {
            bound->unchanged.check("group_step");
            state.check("group_step");
            return group_resume_backward_cpu(bound->context, bound->weights, kept, u.contiguous(),
                                             done, *passed);
          }};
}

Map GroupStep::map() const {
  const auto series = [step = *this]() -> Map::Series {
    return [step, series = std::make_shared<GroupSeries>()](const Tensor& z,
                                                            const std::vector<int64_t>& done) {
      return step.on_cpu(z) ? group_resume_cpu(step.context(), step.bound_->weights, z.contiguous(),
                                               done, *series)
                            : step(z);
    };
  };
  return Map([step = *this](const Tensor& z) { return step(z); }, series)
      .set_linearise([step = *this](const Tensor& z) { return step.linearise(z); })
      .set_reference([step = *this](const Tensor& z) {
        return z.numel() > 0 ? group_step_reference(z, step.context()) : z.clone();
      });
}

}  // namespace deq::ops
