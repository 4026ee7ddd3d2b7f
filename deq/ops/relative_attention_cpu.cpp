#include "deq/ops/relative_attention_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <memory>
#include <vector>

#include "deq/ops/packed.h"
#include "deq/ops/tasks.h"
#include "deq/ops/weight_gradient.h"

namespace deq::ops {

using at::Tensor;

namespace {

/// One head's rows of a (B, N, D) tensor, or of an (N, D) one that all samples share: (N, d).
template <class T>
Strided<T> rows_of(const Tensor& t, int64_t b, int64_t h, int64_t width) {
  const int64_t offset = (t.dim() == 3 ? b * t.stride(0) : 0) + h * width;
  return {t.data_ptr<T>() + offset, t.stride(-2), 1};
}
template <class T>
T* at_head(const Tensor& t, int64_t b, int64_t h, int64_t width) {
  return const_cast<T*>(rows_of<T>(t, b, h, width).data);
}

template <class F>
void by_type(const Tensor& t, const F& f) {
  if (t.scalar_type() == at::kFloat) {
    f(float());
  } else {
    f(double());
  }
}

}  // namespace

Tensor with_rows(const Tensor& t) {
  const bool fits = t.stride(-1) == 1 && t.stride(-2) >= t.size(-1);
  return fits ? t : t.clone(at::MemoryFormat::Contiguous);
}

bool attention_on_cpu(const Tensor& q) {
  const bool known = q.scalar_type() == at::kFloat || q.scalar_type() == at::kDouble;
  return known && q.device().is_cpu() && q.numel() > 0;
}

PackedAttention::PackedAttention(const AttentionContext& context, const AttentionView& view)
    : view_(view),
      hidden_(context.hidden),
      H_(view.heads),
      d_(context.r.size(1) / view.heads),
      R_(context.r.size(0)),
      r_(context.r.detach()),
      content_bias_(context.content_bias.detach().contiguous()),
      position_bias_(context.position_bias.detach().contiguous()) {
  if (context.mask.defined()) mask_ = context.mask.detach().contiguous();
  if (context.past_k.defined() && context.past_k.size(1) > 0) {
    past_k_ = context.past_k.detach();
    past_v_ = context.past_v.detach();
    M_ = past_k_.size(1);
    keys_ = packed(past_k_, true);
    values_ = packed(past_v_, false);
  }
  positions_ = packed(r_, true);
}

/// (N, d) of every head and sample, or its transpose (`columns`), one after the other.
template <class T>
Tensor PackedAttention::pack_heads(const Tensor& x, bool columns) const {
  const int64_t B = x.dim() == 3 ? x.size(0) : 1, N = x.size(-2);
  const Tensor from = with_rows(x);
  const int64_t size = columns ? packed_size<T>(d_, N) : packed_size<T>(N, d_);
  Tensor out = at::empty({B * H_, size}, from.options());
  T* to = out.data_ptr<T>();
  at::parallel_for(0, B * H_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Strided<T> rows = rows_of<T>(from, n / H_, n % H_, d_);
      if (columns) {
        pack(rows.transposed(), d_, N, to + n * size);
      } else {
        pack(rows, N, d_, to + n * size);
      }
    }
  });
  return out;
}

Tensor PackedAttention::packed(const Tensor& x, bool columns) const {
  return x.scalar_type() == at::kFloat ? pack_heads<float>(x, columns)
                                       : pack_heads<double>(x, columns);
}

void PackedAttention::prepare_backward() const {
  std::call_once(once_, [&] {
    position_rows_ = packed(r_, false);
    if (M_ == 0) return;
    key_rows_ = packed(past_k_, false);
    value_columns_ = packed(past_v_, true);
  });
}

template <class T>
AttentionHead<T> PackedAttention::head(int64_t b, int64_t h, int64_t queries, bool backward) const {
  const int64_t W = panel_width<T>(), n = b * H_ + h;
  const auto piece = [&](const Tensor& t, int64_t index) {
    return t.defined() ? t.data_ptr<T>() + index * t.size(1) : nullptr;
  };
  AttentionHead<T> head;
  head.span = span(b, queries);
  head.width = d_;
  head.past = {piece(keys_, n), piece(values_, n), nullptr, nullptr, M_ * W};
  head.positions = {piece(positions_, h), nullptr, nullptr, nullptr, R_ * W};
  if (backward) {
    head.past.key_rows = piece(key_rows_, n);
    head.past.value_columns = piece(value_columns_, n);
    head.positions.key_rows = piece(position_rows_, h);
  }
  head.rows = R_;
  head.content_bias = content_bias_.data_ptr<T>() + h * d_;
  head.position_bias = position_bias_.data_ptr<T>() + h * d_;
  if (mask_.defined()) head.mask = mask_.data_ptr<T>() + n * queries * (M_ + queries);
  return head;
}

namespace {

/// Runs f(head, b, h, scratch) for every head of every sample in which some positions are open.
template <class T, class F>
void for_heads(const Tensor& q, const Tensor& k, const Tensor& v, const PackedAttention& packed,
               const OpenRows& open, bool backward, const F& f) {
  const int64_t N = q.size(1), H = packed.view().heads, d = q.size(2) / H;
  std::vector<int64_t> samples;
  for (int64_t b = 0; b < open.batch(); ++b) {
    if (!open.none(b)) samples.push_back(b);
  }
  const int64_t numbers = attention_scratch<T>(packed.span(0, N), d, backward);
  const auto one_head = [&](int64_t i, T* scratch) {
    const int64_t b = samples[size_t(i / H)], h = i % H;
    AttentionHead<T> head = packed.head<T>(b, h, N, backward);
    head.q = rows_of<T>(q, b, h, d);
    head.k = rows_of<T>(k, b, h, d);
    head.v = rows_of<T>(v, b, h, d);
    f(head, b, h, scratch);
  };
  const int64_t pairs = int64_t(samples.size()) * N * (packed.past() + N);
  run_tasks<T>(int64_t(samples.size()) * H, numbers, one_head, 3 * pairs * H * d);
}

template <class T>
void forward(const Tensor& q, const Tensor& k, const Tensor& v, const PackedAttention& packed,
             const OpenRows& open, const Tensor& y, const Tensor& log_sum) {
  const int64_t N = q.size(1), H = packed.view().heads, d = q.size(2) / H;
  T* sums = log_sum.defined() ? log_sum.data_ptr<T>() : nullptr;
  for_heads<T>(q, k, v, packed, open, false,
               [&](AttentionHead<T>& head, int64_t b, int64_t h, T* scratch) {
                 head.done = open.begin(b);
                 attention_head(head, at_head<T>(y, b, h, d), y.stride(1),
                                sums ? sums + (b * H + h) * N : nullptr, scratch);
               });
}

template <class T>
void backward(const Tensor& q, const Tensor& k, const Tensor& v, const PackedAttention& packed,
              const OpenRows& open, const Tensor& y, const Tensor& log_sum, const Tensor& dy,
              const AttentionGradients& out) {
  const int64_t N = q.size(1), D = q.size(2), H = packed.view().heads, d = D / H;
  for_heads<T>(q, k, v, packed, open, true,
               [&](const AttentionHead<T>& head, int64_t b, int64_t h, T* scratch) {
                 HeadGradients<T> to;
                 to.q = at_head<T>(out.qkv, b, h, d);
                 to.k = to.q + D;
                 to.v = to.k + D;
                 to.row = out.qkv.stride(1);
                 if (out.past_k.defined()) {
                   to.past_k = at_head<T>(out.past_k, b, h, d);
                   to.past_v = at_head<T>(out.past_v, b, h, d);
                   to.past_row = D;
                 }
                 if (out.r.defined()) {
                   to.positions = at_head<T>(out.r, b, h, d);
                   to.positions_row = D;
                   to.content_bias = out.content_bias.data_ptr<T>() + b * D + h * d;
                   to.position_bias = out.position_bias.data_ptr<T>() + b * D + h * d;
                 }
                 attention_head_backward(head, rows_of<T>(y, b, h, d),
                                         log_sum.data_ptr<T>() + (b * H + h) * N,
                                         rows_of<T>(dy, b, h, d), to, scratch);
               });
}

}  // namespace

void attention_forward_cpu(const Tensor& q, const Tensor& k, const Tensor& v,
                           const PackedAttention& packed, const OpenRows& open, const Tensor& y,
                           const Tensor& log_sum) {
  by_type(q, [&](auto type) { forward<decltype(type)>(q, k, v, packed, open, y, log_sum); });
}

void attention_resume_backward_cpu(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const PackedAttention& packed, const OpenRows& open,
                                   const Tensor& y, const Tensor& log_sum, const Tensor& dy,
                                   const Tensor& dqkv) {
  packed.prepare_backward();
  AttentionGradients out;
  out.qkv = dqkv;
  by_type(q,
          [&](auto type) { backward<decltype(type)>(q, k, v, packed, open, y, log_sum, dy, out); });
}

AttentionGradients attention_backward_cpu(const Tensor& q, const Tensor& k, const Tensor& v,
                                          const PackedAttention& packed, const Tensor& y,
                                          const Tensor& log_sum, const Tensor& dy, bool all) {
  packed.prepare_backward();
  const int64_t B = q.size(0), N = q.size(1), D = q.size(2), M = packed.past();
  const auto options = q.options().requires_grad(false);
  AttentionGradients out;
  out.qkv = at::empty({B, N, 3 * D}, options);
  if (all) {
    // Of what the samples share, one for each sample, summed afterwards in a fixed order.
    out.r = at::empty({B, relative_rows(N, M, packed.view().causal), D}, options);
    out.content_bias = at::empty({B, D}, options);
    out.position_bias = at::empty({B, D}, options);
    if (M > 0) {
      out.past_k = at::empty({B, M, D}, options);
      out.past_v = at::empty({B, M, D}, options);
    }
  }
  const Tensor rows = with_rows(dy);
  const OpenRows open(B, N);
  by_type(q, [&](auto type) {
    backward<decltype(type)>(q, k, v, packed, open, y, log_sum, rows, out);
  });
  if (!all) return out;
  out.r = bias_gradient(out.r.view({B, -1})).view(out.r.sizes().slice(1));
  out.content_bias = bias_gradient(out.content_bias);
  out.position_bias = bias_gradient(out.position_bias);
  return out;
}

}  // namespace deq::ops
