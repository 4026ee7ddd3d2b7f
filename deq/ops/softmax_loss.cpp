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

/// What rows of logits come to, (N) each.
struct Rows {
  Tensor losses, shares;

  Rows(int64_t N, const Tensor& like)
      : losses(at::empty({N}, like.options().requires_grad(false))),
        shares(at::empty_like(losses)) {}
};

/// Of logits (n, V) less their bias, rows `first` on: see softmax_row().
template <class T>
void run(const Tensor& logits, const Tensor& bias, const Tensor& targets, int64_t first,
         const Rows& to) {
  const int64_t V = logits.size(1);
  const int64_t* target = targets.data_ptr<int64_t>() + first;
  const T* b = bias.data_ptr<T>();
  T* const row = logits.data_ptr<T>();
  T *const loss = to.losses.data_ptr<T>() + first, *const share = to.shares.data_ptr<T>() + first;
  at::parallel_for(0, logits.size(0), 1 + 16384 / V, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const SoftmaxRow<T> found = softmax_row(row + n * V, b, V, target[n]);
      loss[n] = found.loss;
      share[n] = found.share;
    }
  });
}
void take_rows(const Tensor& logits, const Tensor& bias, const Tensor& targets, int64_t first,
               const Rows& to) {
  const Tensor b = bias.contiguous();
  if (logits.scalar_type() == at::kFloat) {
    run<float>(logits, b, targets, first, to);
  } else {
    run<double>(logits, b, targets, first, to);
  }
}

// Rows whose logits are held at a time.
constexpr int64_t kRows = 256;

/// Runs f(logits less their bias, first row, rows) over all rows, with the logits of some of them
/// at a time.
template <class F>
void by_rows(const Tensor& hidden, const Tensor& weight, const F& f) {
  const int64_t N = hidden.size(0), most = std::min(N, kRows);
  const Tensor held = at::empty({most, weight.size(0)}, hidden.options().requires_grad(false));
  for (int64_t begin = 0; begin < N; begin += most) {
    const int64_t count = std::min(most, N - begin);
    Tensor logits = held.narrow(0, 0, count);
    at::mm_out(logits, hidden.narrow(0, begin, count), weight.t());
    f(logits, begin, count);
  }
}

/// d loss / d logits, (N, V), and the losses.
Tensor by_logits(const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                 const Tensor& targets, const Rows& rows) {
  const Tensor logits = at::mm(hidden, weight.t());
  take_rows(logits, bias, targets, 0, rows);
  return logits.mul_(rows.shares.unsqueeze(1));
}

/// What each loss passes on to its row of `hidden`, and all together to weight and bias.
struct LossGradients {
  Tensor hidden, weight, bias;
};

LossGradients gradients_of_all(const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                               const Tensor& targets, const Rows& rows) {
  LossGradients g{at::empty_like(hidden), at::zeros_like(weight), at::zeros_like(bias)};
  by_rows(hidden, weight, [&](const Tensor& logits, int64_t begin, int64_t count) {
    take_rows(logits, bias, targets, begin, rows);
    const Tensor share = rows.shares.narrow(0, begin, count);
    Tensor to = g.hidden.narrow(0, begin, count);
    at::mm_out(to, logits, weight);
    to.mul_(share.unsqueeze(1));
    g.weight.addmm_(logits.t(), hidden.narrow(0, begin, count) * share.unsqueeze(1));
    g.bias.addmv_(logits.t(), share);
  });
  return g;
}

/// Keeps the gradients by logits, or where that is less the gradients that all losses have
/// together, which serve if what comes back is one number for all.
struct LossNode : torch::autograd::Function<LossNode> {
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const Tensor& weight,
                        const Tensor& bias, const Tensor& targets, bool together) {
    const Rows rows(hidden.size(0), hidden);
    variable_list saved{hidden, weight, bias, targets};
    if (together) {
      const LossGradients g = gradients_of_all(hidden, weight, bias, targets, rows);
      saved.insert(saved.end(), {g.hidden, g.weight, g.bias});
    } else {
      saved.push_back(by_logits(hidden, weight, bias, targets, rows));
    }
    context->save_for_backward(saved);
    return rows.losses;
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
        together ? by_logits(hidden, weight, saved[2], saved[3], Rows(hidden.size(0), hidden))
                 : saved[4];
    if (context->needs_input_grad(0)) found[0] = at::mm(by_logit, weight) * share.unsqueeze(1);
    if (context->needs_input_grad(1)) found[1] = at::mm(by_logit.t(), hidden * share.unsqueeze(1));
    if (context->needs_input_grad(2)) found[2] = at::mv(by_logit.t(), share);
    return found;
  }

  static variable_list differentiable_backward(const variable_list& saved, const Tensor& share) {
    const auto loss = [&](const variable_list& x) {
      return softmax_loss_reference(x[0], x[1], x[2], saved[3]);
    };
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
  const Rows rows(hidden.size(0), hidden);
  by_rows(hidden, weight, [&](const Tensor& logits, int64_t begin, int64_t) {
    take_rows(logits, bias, target, begin, rows);
  });
  return rows.losses;
}

}  // namespace deq::ops
