#include "deq/ops/softmax_loss.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "deq/base/error.h"
#include "deq/ops/packed.h"
#include "deq/ops/softmax_kernel.h"
#include "deq/ops/tasks.h"
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

// Rows whose logits are held at a time.
constexpr int64_t kRows = 256;

/// The arguments of a loss, contiguous, and what it comes to.
struct Loss {
  Tensor hidden, weight, bias, targets;
  Rows rows;

  Loss(const Tensor& h, const Tensor& w, const Tensor& b, const Tensor& t)
      : hidden(h.detach().contiguous()),
        weight(w.detach().contiguous()),
        bias(b.detach().contiguous()),
        targets(t),
        rows(h.size(0), hidden) {}

  /// Memory for the logits of so many rows.
  template <class T>
  Tensor logits(int64_t count) const {
    return at::empty({weight.size(0), softmax_columns<T>(count)}, hidden.options());
  }

  /// Works on rows first .. first + count - 1, whose logits are to stand in `by_word`.
  template <class T>
  SoftmaxRows<T> run(int64_t first, int64_t count, const Tensor& by_word,
                     const Tensor& gradients = {}) const {
    SoftmaxRows<T> s;
    s.rows = count;
    s.features = hidden.size(1);
    s.words = weight.size(0);
    s.hidden = hidden.data_ptr<T>() + first * s.features;
    s.weight = weight.data_ptr<T>();
    s.bias = bias.data_ptr<T>();
    s.targets = targets.data_ptr<int64_t>() + first;
    s.by_word = by_word.data_ptr<T>();
    s.columns = by_word.size(1);
    s.losses = rows.losses.data_ptr<T>() + first;
    s.shares = rows.shares.data_ptr<T>() + first;
    if (gradients.defined()) s.gradients = gradients.data_ptr<T>() + first * s.features;
    const int64_t W = panel_width<T>(), threads = at::get_num_threads();
    const int64_t block = (count + W * threads - 1) / (W * threads) * W;
    run_tasks<T>((count + block - 1) / block, softmax_scratch<T>(block, s.features),
                 [&](int64_t i, T* scratch) {
                   softmax_rows(s, i * block, std::min(count, (i + 1) * block), scratch);
                 });
    return s;
  }
};

/// Runs f(first row, rows, memory for their logits) over all rows.
template <class T, class F>
void by_rows(const Loss& loss, const F& f) {
  const int64_t N = loss.hidden.size(0), most = std::min(N, kRows);
  const Tensor held = loss.logits<T>(most);
  for (int64_t begin = 0; begin < N; begin += most) f(begin, std::min(most, N - begin), held);
}

/// d loss / d logits, (N, V).
template <class T>
Tensor by_logits(const Loss& loss) {
  const int64_t N = loss.hidden.size(0);
  const Tensor by_word = loss.logits<T>(N);
  loss.run<T>(0, N, by_word);
  return by_word.narrow(1, 0, N).mul_(loss.rows.shares).t();
}

/// What each loss passes on to its row of `hidden`, and all together to weight and bias.
struct LossGradients {
  Tensor hidden, weight, bias;
};

template <class T>
LossGradients gradients_of_all(const Loss& loss) {
  LossGradients g{at::empty_like(loss.hidden), at::zeros_like(loss.weight),
                  at::zeros_like(loss.bias)};
  const int64_t D = loss.hidden.size(1);
  T *const weight = g.weight.data_ptr<T>(), *const bias = g.bias.data_ptr<T>();
  by_rows<T>(loss, [&](int64_t first, int64_t count, const Tensor& held) {
    const SoftmaxRows<T> s = loss.run<T>(first, count, held, g.hidden);
    const Tensor scaled =
        loss.hidden.narrow(0, first, count) * loss.rows.shares.narrow(0, first, count).unsqueeze(1);
    const Tensor panels = at::empty({packed_size<T>(count, D)}, scaled.options());
    pack({scaled.data_ptr<T>(), D, 1}, count, D, panels.data_ptr<T>());
    run_tasks<T>((s.words + kSoftmaxWords - 1) / kSoftmaxWords, 0, [&](int64_t i, T*) {
      const int64_t end = std::min(s.words, (i + 1) * kSoftmaxWords);
      softmax_words(s, i * kSoftmaxWords, end, panels.data_ptr<T>(), weight, bias);
    });
  });
  return g;
}

/// f(0.f) or f(0.0), by the type of t.
template <class F>
auto of_type(const Tensor& t, const F& f) {
  return t.scalar_type() == at::kFloat ? f(0.f) : f(0.0);
}

Tensor by_logits_of(const Loss& loss) {
  return of_type(loss.hidden, [&](auto zero) { return by_logits<decltype(zero)>(loss); });
}

/// Keeps the gradients by logits, or where that is less the gradients that all losses have
/// together, which serve if what comes back is one number for all.
struct LossNode : torch::autograd::Function<LossNode> {
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const Tensor& weight,
                        const Tensor& bias, const Tensor& targets, bool together) {
    const Loss loss(hidden, weight, bias, targets);
    variable_list saved{hidden, weight, bias, targets};
    if (together) {
      const LossGradients g =
          of_type(hidden, [&](auto zero) { return gradients_of_all<decltype(zero)>(loss); });
      saved.insert(saved.end(), {g.hidden, g.weight, g.bias});
    } else {
      saved.push_back(by_logits_of(loss));
    }
    context->save_for_backward(saved);
    return loss.rows.losses;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list found(5);
    if (!gradients[0].defined()) return found;
    const variable_list saved = context->get_saved_variables();
    const Tensor &hidden = saved[0], &weight = saved[1], &share = gradients[0];
    if (c10::GradMode::is_enabled()) return differentiable_backward(saved, share);
    const bool together = saved.size() > 5;
    if (together && share.min().equal(share.max())) {
      if (context->needs_input_grad(0)) found[0] = saved[4] * share.unsqueeze(1);
      if (context->needs_input_grad(1)) found[1] = saved[5] * share[0];
      if (context->needs_input_grad(2)) found[2] = saved[6] * share[0];
      return found;
    }
    const Tensor by_logit =
        together ? by_logits_of(Loss(hidden, weight, saved[2], saved[3])) : saved[4];
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
  if (c10::GradMode::is_enabled()) {
    const bool together = use == LossUse::Mean && hidden.size(0) > hidden.size(1);
    return LossNode::apply(hidden, weight, bias, target, together);
  }
  const Loss loss(hidden, weight, bias, target);
  of_type(hidden, [&](auto zero) {
    using T = decltype(zero);
    by_rows<T>(loss, [&](int64_t first, int64_t count, const Tensor& held) {
      loss.run<T>(first, count, held);
    });
  });
  return loss.rows.losses;
}

}  // namespace deq::ops
