#include "deq/ops/softmax_loss.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "deq/base/error.h"
#include "deq/ops/softmax_kernel.h"
#include "deq/ops/twice.h"

namespace deq::ops {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

void check(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets) {
  DEQ_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
                bias.sizes() == at::IntArrayRef({weight.size(0)}) &&
                targets.sizes() == at::IntArrayRef({hidden.size(0)}),
            "softmax_loss: hidden [{}], weight [{}], bias [{}], targets [{}]; expected (N, D), "
            "(V, D), (V), (N)",
            fmt::join(hidden.sizes(), ", "), fmt::join(weight.sizes(), ", "),
            fmt::join(bias.sizes(), ", "), fmt::join(targets.sizes(), ", "));
  DEQ_CHECK(targets.scalar_type() == at::kLong, "softmax_loss: targets are {}; expected Long",
            c10::toString(targets.scalar_type()));
  if (targets.numel() == 0) return;
  const int64_t low = targets.min().item<int64_t>(), high = targets.max().item<int64_t>();
  DEQ_CHECK(low >= 0 && high < weight.size(0), "softmax_loss: target {}; expected 0 to {}",
            low < 0 ? low : high, weight.size(0) - 1);
}

/// The losses of rows of logits, which `gradient` turns into their derivatives.
template <class T>
void run(Tensor& logits, const Tensor& targets, bool gradient, Tensor out) {
  const int64_t V = logits.size(1);
  const int64_t* target = targets.data_ptr<int64_t>();
  T *row = logits.data_ptr<T>(), *loss = out.data_ptr<T>();
  at::parallel_for(0, logits.size(0), 1 + 16384 / V, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      loss[n] = softmax_row_loss(row + n * V, V, target[n], gradient);
  });
}
void losses_of(Tensor& logits, const Tensor& targets, bool gradient, const Tensor& out) {
  if (logits.scalar_type() == at::kFloat) {
    run<float>(logits, targets, gradient, out);
  } else {
    run<double>(logits, targets, gradient, out);
  }
}

// Rows whose logits are held at a time.
constexpr int64_t kRows = 256;

/// Runs f(logits, first row, rows) over all rows, with the logits of some of them at a time.
template <class F>
void by_rows(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const F& f) {
  const int64_t N = hidden.size(0);
  for (int64_t begin = 0; begin < N; begin += kRows) {
    const int64_t count = std::min(kRows, N - begin);
    Tensor logits = at::addmm(bias, hidden.narrow(0, begin, count), weight.t());
    f(logits, begin, count);
  }
}

/// d loss / d logits, (N, V), and the losses.
Tensor by_logits(const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                 const Tensor& targets, const Tensor& losses) {
  Tensor logits = at::addmm(bias, hidden, weight.t());
  losses_of(logits, targets, true, losses);
  return logits;
}

/// What each loss passes on to its row of `hidden`, and all together to weight and bias.
struct LossGradients {
  Tensor hidden, weight, bias;
};

LossGradients gradients_of_all(const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                               const Tensor& targets, const Tensor& losses) {
  LossGradients g{at::empty_like(hidden), at::zeros_like(weight), at::zeros_like(bias)};
  by_rows(hidden, weight, bias, [&](Tensor& logits, int64_t begin, int64_t count) {
    losses_of(logits, targets.narrow(0, begin, count), true, losses.narrow(0, begin, count));
    Tensor rows = g.hidden.narrow(0, begin, count);
    at::mm_out(rows, logits, weight);
    g.weight.addmm_(logits.t(), hidden.narrow(0, begin, count));
    g.bias.add_(logits.sum(0));
  });
  return g;
}

/// Keeps the gradients by logits, or where that is less the gradients that all losses have
/// together, which serve if what comes back is one number for all.
struct LossNode : torch::autograd::Function<LossNode> {
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const Tensor& weight,
                        const Tensor& bias, const Tensor& targets, bool together) {
    const Tensor losses = at::empty({hidden.size(0)}, hidden.options().requires_grad(false));
    variable_list saved{hidden, weight, bias, targets};
    if (together) {
      const LossGradients g = gradients_of_all(hidden, weight, bias, targets, losses);
      saved.insert(saved.end(), {g.hidden, g.weight, g.bias});
    } else {
      saved.push_back(by_logits(hidden, weight, bias, targets, losses));
    }
    context->save_for_backward(saved);
    return losses;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list found(5);
    if (!gradients[0].defined()) return found;
    const variable_list saved = context->get_saved_variables();
    const Tensor &hidden = saved[0], &weight = saved[1], &share = gradients[0];
    if (at::GradMode::is_enabled()) return differentiable_backward(saved, share);
    const bool together = saved.size() > 5;
    if (together && share.min().equal(share.max())) {
      if (context->needs_input_grad(0)) found[0] = saved[4] * share.unsqueeze(1);
      if (context->needs_input_grad(1)) found[1] = saved[5] * share[0];
      if (context->needs_input_grad(2)) found[2] = saved[6] * share[0];
      return found;
    }
    const Tensor by_logit =
        together ? by_logits(hidden, weight, saved[2], saved[3], at::empty_like(share)) : saved[4];
    if (context->needs_input_grad(0)) found[0] = at::mm(by_logit, weight) * share.unsqueeze(1);
    if (context->needs_input_grad(1)) found[1] = at::mm(by_logit.t(), hidden * share.unsqueeze(1));
    if (context->needs_input_grad(2)) found[2] = at::mv(by_logit.t(), share);
    return found;
  }

  static variable_list differentiable_backward(const variable_list& saved, const Tensor& share) {
    const Tensor loss = softmax_loss_reference(saved[0], saved[1], saved[2], saved[3]);
    variable_list found = taped_gradients(loss, {saved[0], saved[1], saved[2]}, share);
    found.resize(5);
    return found;
  }
};

}  // namespace

Tensor softmax_loss_reference(const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                              const Tensor& targets) {
  check(hidden, weight, bias, targets);
  const Tensor log_p = at::log_softmax(at::addmm(bias, hidden, weight.t()), 1);
  return -log_p.gather(1, targets.unsqueeze(1)).squeeze(1);
}

Tensor softmax_loss(const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                    const Tensor& targets, LossUse use) {
  const bool known = hidden.scalar_type() == at::kFloat || hidden.scalar_type() == at::kDouble;
  if (!known || !hidden.device().is_cpu() || hidden.numel() == 0)
    return softmax_loss_reference(hidden, weight, bias, targets);
  check(hidden, weight, bias, targets);
  const Tensor target = targets.contiguous();
  if (at::GradMode::is_enabled()) {
    const bool together = use == LossUse::Mean && hidden.size(0) > hidden.size(1);
    return LossNode::apply(hidden, weight, bias, target, together);
  }
  const Tensor losses = at::empty({hidden.size(0)}, hidden.options());
  by_rows(hidden, weight, bias, [&](Tensor& logits, int64_t begin, int64_t count) {
    losses_of(logits, target.narrow(0, begin, count), false, losses.narrow(0, begin, count));
  });
  return losses;
}

}  // namespace deq::ops
