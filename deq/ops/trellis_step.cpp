#include "deq/ops/trellis_step.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "deq/base/error.h"
#include "deq/ops/shapes.h"
#include "deq/ops/trellis_step_cpu.h"
#include "deq/ops/twice.h"

namespace deq::ops {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

void check_context(const TrellisContext& c) {
  DEQ_CHECK(c.kernel >= 1, "trellis_step: kernel = {}; expected >= 1", c.kernel);
  DEQ_CHECK(c.dilation >= 1, "trellis_step: dilation = {}; expected >= 1", c.dilation);
  DEQ_CHECK(c.ahead >= 0 && c.ahead < c.kernel,
            "trellis_step: ahead = {}; expected 0 to {}, less than kernel", c.ahead, c.kernel - 1);
  const Tensor& w = c.weight.weight;
  DEQ_CHECK(
      w.defined() && w.dim() == 2 && w.size(0) % 4 == 0 && w.size(1) == c.kernel * (w.size(0) / 4),
      "trellis_step: weight is {}; expected [4 H, {} H]", shape_of(w), c.kernel);
  DEQ_CHECK(!c.weight.packed || c.weight.packed->forward().size(0) == 4 * c.kernel,
            "trellis_step: a weight laid out for {} taps; expected kernel = {}",
            c.weight.packed->forward().size(0) / 4, c.kernel);
  const int64_t H = w.size(0) / 4;
  DEQ_CHECK(c.injected.defined() && c.injected.dim() == 3 && c.injected.size(2) == 4 * H,
            "trellis_step: injected is {}; expected (batch, positions, {})", shape_of(c.injected),
            4 * H);
  const int64_t B = c.injected.size(0);
  const int64_t P = std::max<int64_t>(1, c.dilation * (c.kernel - 1 - c.ahead));
  DEQ_CHECK(c.past.defined() && c.past.dim() == 3 && c.past.size(0) == B && c.past.size(1) >= P &&
                c.past.size(2) == 2 * H,
            "trellis_step: past is {}; expected ({}, {} or more, {})", shape_of(c.past), B, P,
            2 * H);
  DEQ_CHECK(!c.hidden_mask.defined() || c.hidden_mask.sizes() == at::IntArrayRef({B, 1, H}),
            "trellis_step: hidden_mask is {}; expected [{}, 1, {}]", shape_of(c.hidden_mask), B, H);
  for (const Tensor* t : {&c.injected, &c.past, &c.hidden_mask}) {
    DEQ_CHECK(!t->defined() || t->scalar_type() == w.scalar_type(),
              "trellis_step: the weight is {} and what stands beside it {}; expected one type",
              c10::toString(w.scalar_type()), c10::toString(t->scalar_type()));
  }
}

void check_state(const Tensor& z, const TrellisContext& c) {
  const int64_t H = c.weight.weight.size(0) / 4;
  const int64_t B = c.injected.size(0), T = c.injected.size(1);
  DEQ_CHECK(z.defined() && z.sizes() == at::IntArrayRef({B, T, 2 * H}),
            "trellis_step: z is {}; expected [{}, {}, {}]", shape_of(z), B, T, 2 * H);
  DEQ_CHECK(z.scalar_type() == c.weight.weight.scalar_type(),
            "trellis_step: z is {} and the weight {}; expected one type",
            c10::toString(z.scalar_type()), c10::toString(c.weight.weight.scalar_type()));
}

/// What f was bound to, and is laid out, must be what it was.
void check_unchanged(const TrellisContext& c, const Unchanged& others) {
  c.weight.packed->check_unchanged();
  others.check("trellis_step");
}

/// What an evaluation needs, on its way from forward to backward.
struct Held : torch::CustomClassHolder {
  std::shared_ptr<const TrellisContext> context;
  std::shared_ptr<const Unchanged> unchanged;
  TrellisKept kept;  // of an evaluation already made
};
constexpr const char* kHeld = "held";
constexpr size_t kInputs = 3;  // z, injected, weight

struct StepNode : torch::autograd::Function<StepNode> {
  static Tensor forward(AutogradContext* context, const Tensor& z, const Tensor& /*injected*/,
                        const Tensor& /*weight*/, c10::intrusive_ptr<Held> held) {
    const TrellisKept k = std::exchange(held->kept, {});
    context->save_for_backward({z, k.f, k.h, k.gates});
    context->saved_data[kHeld] = c10::IValue::make_capsule(std::move(held));
    return k.f;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list result(kInputs + 1);
    if (!gradients[0].defined()) return result;
    const variable_list saved = context->get_saved_variables();
    const auto held =
        c10::static_intrusive_pointer_cast<Held>(context->saved_data[kHeld].toCapsule());
    const TrellisContext& c = *held->context;
    check_unchanged(c, *held->unchanged);
    if (c10::GradMode::is_enabled()) {
      const auto f = [&](const variable_list& x) {
        TrellisContext with = c;
        with.injected = x[1];
        with.weight.weight = x[2];
        return trellis_step_reference(x[0], with);
      };
      result = taped_gradients(f, {saved[0], c.injected, c.weight.weight}, gradients[0]);
      result.resize(kInputs + 1);
      return result;
    }
    const bool all = context->needs_input_grad({{1, kInputs}});
    const TrellisGiven g = trellis_backward_cpu(c, {saved[0], saved[1], saved[2], saved[3]},
                                                gradients[0].contiguous(), all);
    result[0] = g.z;
    result[1] = g.injected;
    result[2] = g.weight;
    return result;
  }
};

}  // namespace

Tensor trellis_step_reference(const Tensor& z, const TrellisContext& c) {
  check_state(z, c);
  const int64_t H = z.size(2) / 2, T = z.size(1), P = c.dilation * (c.kernel - 1 - c.ahead);
  Tensor h =
      at::cat({c.past.narrow(1, c.past.size(1) - P, P).narrow(2, 0, H), z.narrow(2, 0, H)}, 1);
  if (c.ahead > 0) h = at::constant_pad_nd(h, {0, 0, 0, c.dilation * c.ahead});
  if (c.hidden_mask.defined()) h = h * c.hidden_mask;
  std::vector<Tensor> taps;
  for (int64_t k = 0; k < c.kernel; ++k) taps.push_back(h.narrow(1, k * c.dilation, T));
  const auto gates =
      (at::matmul(at::cat(taps, 2), c.weight.weight.t()) + c.injected).chunk(4, 2);  // (B, T, H)
  const Tensor before = at::cat({c.past.narrow(1, c.past.size(1) - 1, 1).narrow(2, H, H),
                                 z.narrow(1, 0, T - 1).narrow(2, H, H)},
                                1);
  const Tensor now = gates[3].sigmoid() * before + gates[0].sigmoid() * gates[2].tanh();
  return at::cat({gates[1].sigmoid() * now.tanh(), now}, 2);
}

struct TrellisStep::Bound {
  TrellisContext context;
  Unchanged unchanged;  // what the context holds besides the weight
};

TrellisStep::TrellisStep(TrellisContext context) {
  check_context(context);
  for (Tensor* t : {&context.injected, &context.past, &context.hidden_mask}) {
    if (t->defined()) *t = t->contiguous();
  }
  auto bound = std::make_shared<Bound>();
  bound->unchanged = Unchanged({{"injected", context.injected},
                                {"past", context.past},
                                {"hidden_mask", context.hidden_mask}});
  bound->context = std::move(context);
  bound_ = std::move(bound);
}

const TrellisContext& TrellisStep::context() const { return bound_->context; }

/// Whether the kernels know all of it; they give no gradient to the past.
bool TrellisStep::on_cpu(const Tensor& z) const {
  const TrellisContext& c = context();
  check_state(z, c);
  if (!c.weight.packed || z.numel() == 0) return false;
  if (c10::GradMode::is_enabled() && c.past.requires_grad()) return false;
  check_unchanged(c, bound_->unchanged);
  return true;
}

Tensor TrellisStep::operator()(const Tensor& z) const {
  const TrellisContext& c = context();
  if (!on_cpu(z)) return z.numel() > 0 ? trellis_step_reference(z, c) : z.clone();
  const bool tape = c10::GradMode::is_enabled();
  TrellisKept kept = trellis_forward_cpu(c, z.detach().contiguous(), tape);
  return tape ? taped(z, std::move(kept)) : kept.f;
}

/// f(z) with its tape, which `kept` was made for.
Tensor TrellisStep::taped(const Tensor& z, TrellisKept kept) const {
  auto held = c10::make_intrusive<Held>();
  held->context = std::shared_ptr<const TrellisContext>(bound_, &bound_->context);
  held->unchanged = std::shared_ptr<const Unchanged>(bound_, &bound_->unchanged);
  held->kept = std::move(kept);
  return StepNode::apply(z.contiguous(), context().injected, context().weight.weight,
                         std::move(held));
}

Map::Linearised TrellisStep::linearise(const Tensor& z) const {
  if (!on_cpu(z)) return Map([step = *this](const Tensor& x) { return step(x); }).linearise(z);
  TrellisKept kept = trellis_forward_cpu(context(), z.detach().contiguous(), true);
  const Tensor fz = taped(z, kept);
  kept.f = kept.f.detach();  // what is f's product must not hold f's tape
  const Unchanged state({{"z", kept.z}, {"f(z)", kept.f}});
  return {fz, [bound = bound_, kept, state, passed = std::make_shared<TrellisPassed>()](
                  const Tensor& u, const std::vector<int64_t>& done) {
            check_unchanged(bound->context, bound->unchanged);
            state.check("trellis_step");
            return trellis_resume_backward_cpu(bound->context, kept, u.contiguous(), done, *passed);
          }};
}

Map TrellisStep::map() const {
  const auto series = [step = *this]() -> Map::Series {
    return [step, kept = std::make_shared<TrellisKept>()](const Tensor& z,
                                                          const std::vector<int64_t>& done) {
      return step.on_cpu(z) ? trellis_resume_cpu(step.context(), z.contiguous(), done, *kept)
                            : step(z);
    };
  };
  return Map([step = *this](const Tensor& z) { return step(z); }, series)
      .set_recordable(true)
      .set_linearise([step = *this](const Tensor& z) { return step.linearise(z); })
      .set_reference([step = *this](const Tensor& z) {
        return z.numel() > 0 ? trellis_step_reference(z, step.context()) : z.clone();
      });
}

}  // namespace deq::ops
