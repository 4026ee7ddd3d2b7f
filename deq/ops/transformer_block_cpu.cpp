#include "deq/ops/transformer_block_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>

#include "deq/ops/packed.h"

namespace deq::ops {

using at::Tensor;

PackedBlock::PackedBlock(const BlockWeights& w)
    : weights_{w.qkv.detach(), w.output.detach(), w.inner.detach(), w.outer.detach()} {
  for (const Tensor& weight : weights_) forward_.push_back(packed_weight(weight, false));
}

template <class T>
BlockPanels<T> PackedBlock::panels(bool backward) const {
  if (backward) {
    std::call_once(once_, [this] {
      for (const Tensor& weight : weights_) backward_.push_back(packed_weight(weight, true));
    });
  }
  const auto& from = backward ? backward_ : forward_;
  return {from[0].data_ptr<T>(), from[1].data_ptr<T>(), from[2].data_ptr<T>(),
          from[3].data_ptr<T>()};
}

BlockWeights block_weights(BlockWeights weights) {
  if (attention_on_cpu(weights.qkv)) weights.packed = std::make_shared<const PackedBlock>(weights);
  return weights;
}

namespace {

template <class T>
T* data(const Tensor& t) {
  return t.defined() ? t.data_ptr<T>() : nullptr;
}

template <class T>
BlockRows<T> rows_of(const BlockContext& c, const BlockKept& k, bool backward) {
  BlockRows<T> rows;
  rows.positions = k.z.size(1);
  rows.width = k.z.size(2);
  rows.inner = c.weights.inner.size(0);
  rows.norm = c.norm;
  rows.weights = c.weights.packed->panels<T>(backward);
  rows.output_bias = data<T>(c.weights.output_bias);
  rows.inner_bias = data<T>(c.weights.inner_bias);
  rows.outer_bias = data<T>(c.weights.outer_bias);
  rows.output_mask = data<T>(c.output_mask);
  rows.inner_mask = data<T>(c.inner_mask);
  rows.outer_mask = data<T>(c.outer_mask);
  rows.z = data<T>(k.z);
  rows.injected = data<T>(c.injected);
  rows.qkv = data<T>(k.qkv);
  rows.seen = data<T>(k.seen);
  rows.f = data<T>(k.f);
  rows.normed = data<T>(k.normed);
  rows.hidden = data<T>(k.hidden);
  rows.spread = data<T>(k.spread);
  return rows;
}

/// Runs f(begin, end, scratch) over blocks of rows that stay in the second-level cache.
template <class T, class F>
void for_rows(const Tensor& z, int64_t inner, const F& f) {
  const int64_t rows = z.size(0) * z.size(1), threads = at::get_num_threads();
  const int64_t share = (rows + threads - 1) / threads;
  const int64_t block = std::min<int64_t>(48, (share + 5) / 6 * 6);
  at::parallel_for(0, (rows + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    const auto scratch =
        std::make_unique_for_overwrite<T[]>(size_t(block_scratch(block, z.size(2), inner)));
    for (int64_t i = begin; i < end; ++i)
      f(i * block, std::min(rows, (i + 1) * block), scratch.get());
  });
}

/// Leaves in k what f(k.z) gives.
template <class T>
void forward(const BlockContext& c, const PackedAttention& attention, BlockKept& k, bool taped) {
  const int64_t B = k.z.size(0), N = k.z.size(1), D = k.z.size(2), I = c.weights.inner.size(0);
  const auto options = k.z.options().requires_grad(false);
  k.qkv = at::empty({B, N, 3 * D}, options);
  k.f = at::empty({B, N, D}, options);
  BlockRows<T> rows = rows_of<T>(c, k, false);
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows(rows, begin, end, scratch);
  });
  const auto parts = k.qkv.chunk(3, 2);
  k.seen =
      attention_forward_cpu(parts[0], parts[1], parts[2], attention, taped ? &k.log_sum : nullptr);
  if (taped) {
    k.normed = at::empty({B, N, D}, options);
    k.hidden = at::empty({B, N, I}, options);
    k.spread = at::empty({B, N, 2}, options);
  }
  rows = rows_of<T>(c, k, false);
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    feed_rows(rows, begin, end, scratch);
  });
}

Tensor flat(const Tensor& t) { return t.reshape({-1, t.size(-1)}); }

template <class T>
BlockGiven backward(const BlockContext& c, const PackedAttention& attention, const BlockKept& k,
                    const Tensor& df, bool all) {
  const auto options = df.options().requires_grad(false);
  const int64_t I = c.weights.inner.size(0);
  BlockGiven found;
  found.z = at::empty(k.z.sizes(), options);
  const Tensor seen = at::empty(k.z.sizes(), options);
  Tensor output, inner, outer;
  BlockGradients<T> to;
  to.df = data<T>(df);
  to.seen = seen.data_ptr<T>();
  to.z = found.z.data_ptr<T>();
  if (all) {
    output = at::empty(k.z.sizes(), options);
    inner = at::empty(k.hidden.sizes(), options);
    outer = at::empty(k.z.sizes(), options);
    to.output = output.data_ptr<T>();
    to.inner = inner.data_ptr<T>();
    to.outer = outer.data_ptr<T>();
  }
  const BlockRows<T> rows = rows_of<T>(c, k, true);
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    feed_rows_backward(rows, to, begin, end, scratch);
  });
  const auto parts = k.qkv.chunk(3, 2);
  found.attention =
      attention_backward_cpu(parts[0], parts[1], parts[2], attention, k.seen, k.log_sum, seen, all);
  found.injected = found.attention.qkv;
  to.qkv = found.injected.data_ptr<T>();
  for_rows<T>(k.z, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows_backward(rows, to, begin, end, scratch);
  });
  if (!all) return found;
  const Tensor x = c.norm == NormPlace::Post ? k.z : at::layer_norm(k.z, {k.z.size(2)});
  found.qkv = at::mm(flat(found.injected).t(), flat(x));
  found.output = at::mm(flat(output).t(), flat(k.seen));
  found.output_bias = flat(output).sum(0);
  found.inner = at::mm(flat(inner).t(), flat(k.normed));
  found.inner_bias = flat(inner).sum(0);
  found.outer = at::mm(flat(outer).t(), flat(k.hidden));
  found.outer_bias = flat(outer).sum(0);
  return found;
}

}  // namespace

BlockKept block_forward_cpu(const BlockContext& context, const PackedAttention& attention,
                            const Tensor& z, bool taped) {
  BlockKept kept{.z = z};
  if (z.scalar_type() == at::kFloat) {
    forward<float>(context, attention, kept, taped);
  } else {
    forward<double>(context, attention, kept, taped);
  }
  return kept;
}

BlockGiven block_backward_cpu(const BlockContext& context, const PackedAttention& attention,
                              const BlockKept& kept, const Tensor& df, bool all) {
  c10::NoGradGuard no_tape;
  return df.scalar_type() == at::kFloat ? backward<float>(context, attention, kept, df, all)
                                        : backward<double>(context, attention, kept, df, all);
}

}  // namespace deq::ops
